-- The line: places in the queue, by virtual time.

-- A job's score in the queue; false: it has no place there, nor among parked jobs.
local places = {}

local function place_of(job)
  if places[job] ~= nil then return places[job] end
  return redis.call('ZSCORE', key.queue, job)
    or redis.call('ZSCORE', key.parked .. organization_of(job), job)
end

local function leave_line(jobs)
  if call_for_all('ZREM', key.queue, jobs) == #jobs then return end
  for _, job in ipairs(jobs) do redis.call('ZREM', key.parked .. organization_of(job), job) end
end

local function write_places()
  local members, gone = as_arguments(places, true)
  places = {}
  call_for_all('ZADD', key.queue, members)
  leave_line(gone)
end

-- What is none, or would defer what it is given to, counts for nothing: somebody's hand wrote it.
local function as_virtual_time(raw)
  local time = tonumber(raw) or 0
  return time >= 0 and time < key.deferred_from and time or 0
end

local function system_time()
  return as_virtual_time(redis.call('HGET', key.flows, '*'))
end

-- One beyond would be taken for a moment, and never come up. Long before, `renumber` begins anew.
local last_time = key.deferred_from - 1

-- The system's virtual time only rises.
local function raise_system_time(virtual)
  if virtual > system_time() then redis.call('HSET', key.flows, '*', number(virtual)) end
end

-- Retries and expired leases form a flow beside the organization's fresh events: they don't go
-- behind its backlog, and they don't go ahead of the others.
local function retry_time(organization)
  local field = 'retry:' .. organization
  local last = as_virtual_time(redis.call('HGET', key.flows, field))
  local virtual = math.max(system_time(), last) + 1 / profile_of(organization).weight
  virtual = math.min(virtual, last_time)
  redis.call('HSET', key.flows, field, number(virtual))
  return virtual
end

-- In order, the job goes back to the place that it had.
local function put_back_in_line(claim)
  local had_place = in_order(claim.organization) and tonumber(claim.virtual) > 0
  places[claim.job] = had_place and claim.virtual or number(retry_time(claim.organization))
end
