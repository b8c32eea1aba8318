-- enqueue, of jobs of which nothing is known, as nothing is of most.
--
-- It is all or none: where anything is known of one, the rest of the script sees to each by itself.

local limit, organization_limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local bytes_limit, bytes_at_most = tonumber(ARGV[3]), tonumber(ARGV[4]) or math.huge
local first = 6 + 2 * tonumber(ARGV[5])
local system = system_time()
local backlog = redis.call('ZCARD', key.accepted)
local last, last_order, moved = {}, {}, {} -- of flows, as they are; and whose has gone on
local depth, bytes_limits, bytes = {}, {}, {}

for i = 6, first - 1, 2 do bytes_limits[ARGV[i]] = tonumber(ARGV[i + 1]) end

local function bytes_limit_of(organization)
  local limit = bytes_limits[organization] or bytes_limit
  return math.min(limit > 0 and limit or math.huge, bytes_at_most)
end

-- Looked up once an organization; what this batch adds, it counts itself.
local function bytes_of(organization)
  if bytes[organization] then return bytes[organization] end
  local sum = 0
  for _, kind in ipairs(redis.call('HMGET', key.bytes, organization .. ':waiting',
    organization .. ':dead', organization .. ':marks', organization .. ':state')) do
    sum = sum + math.max(0, tonumber(kind) or 0)
  end
  bytes[organization] = sum
  return sum
end

local noted_full = {}

-- Whoever ends its events leaves their histories out of their marks then, which nothing else would trim.
local function note_nearly_full(organization)
  if noted_full[organization] then return end
  noted_full[organization] = true
  redis.pcall('HSET', key.flows, nearly_full(organization), number(now_ms()))
end

local function bytes_are_full(organization, more)
  local most = bytes_limit_of(organization)
  if most == math.huge then return false end
  local sum = bytes_of(organization) + more
  if sum > 0.9 * most then note_nearly_full(organization) end
  return sum > most
end

local function refused(organization, more_bytes)
  if limit > 0 and backlog >= limit then return 'backlog_full' end
  if organization_limit > 0 then
    depth[organization] = depth[organization]
      or tonumber(redis.call('HGET', key.waiting, organization)) or 0
    if depth[organization] >= organization_limit then return 'organization_backlog_full' end
  end
  if bytes_are_full(organization, more_bytes) then
    count('bytes_full') -- `recount` looks whether that is true still
    return 'organization_bytes_full'
  end
  return nil
end

local order_field = 'order:'

-- Of all organizations of the batch at once.
local function fetch_flows()
  local fields, seen = {}, {}
  for i = first, #ARGV, 4 do
    local organization = organization_of(ARGV[i])
    if not seen[organization] then
      seen[organization] = true
      fields[#fields + 1] = organization
      fields[#fields + 1] = order_field .. organization
    end
  end
  if #fields == 0 then return end
  local found = redis.call('HMGET', key.flows, unpack(fields))
  for i = 1, #fields, 2 do
    last[fields[i]], last_order[fields[i]] = as_virtual_time(found[i]), tonumber(found[i + 1]) or 0
  end
end

-- Start-time fair queueing: behind its own flow, never behind another's, never in the past.
local function next_virtual_time(organization, cost)
  last[organization] = math.min(math.max(system, last[organization]) + cost, last_time)
  moved[organization] = true
  return last[organization]
end

-- Of one organization it rises strictly: several come in one millisecond, and the clock of another
-- ingress may be behind.
local steps = 64 -- in a millisecond
local parts_of_it = {}

-- The whole number and its part apart: a fraction of so many digits takes as long to write as all else.
local function order_text(order)
  local whole = math.floor(order)
  local part = (order - whole) * steps
  if not parts_of_it[part] then parts_of_it[part] = string.sub(string.format('%.6f', part / steps), 2) end
  return string.format('%d', whole) .. parts_of_it[part]
end

local function next_order(organization, received_at)
  local at, next_step = tonumber(received_at), last_order[organization] + 1 / steps
  if at >= next_step then
    last_order[organization] = at
    return received_at
  end
  last_order[organization] = next_step
  return order_text(next_step)
end

local function write_flows()
  local fields = {}
  for organization in pairs(moved) do
    fields[#fields + 1] = organization
    fields[#fields + 1] = number(last[organization])
    fields[#fields + 1] = order_field .. organization
    fields[#fields + 1] = order_text(last_order[organization])
  end
  if #fields > 0 then redis.call('HSET', key.flows, unpack(fields)) end
end

local function count_accepted(organization, more_bytes)
  if depth[organization] then depth[organization] = depth[organization] + 1 end
  if bytes[organization] then bytes[organization] = bytes[organization] + more_bytes end
  backlog = backlog + 1
end

local function none_is_known()
  local jobs, names, seen = {}, {}, {}
  for i = first, #ARGV, 4 do
    local job = ARGV[i]
    if seen[job] then return false end
    seen[job] = true
    jobs[#jobs + 1] = job
    names[#names + 1] = key.job .. job
  end
  if #jobs == 0 or #jobs > most_arguments or redis.call('EXISTS', unpack(names)) > 0 then return false end
  for _, score in ipairs(redis.call('ZMSCORE', key.accepted, unpack(jobs))) do
    if score then return false end
  end
  return true
end

local function accept_plainly()
  local results, payloads, receipts, in_line = {}, {}, {}, {}
  for i = first, #ARGV, 4 do
    local job, payload = ARGV[i], ARGV[i + 1]
    local organization, more_bytes = organization_of(job), cost_of_payload(#payload)
    local refusal = refused(organization, more_bytes)
    results[#results + 1] = refusal or 'new'
    if not refusal then
      payloads[#payloads + 1] = key.job .. job
      payloads[#payloads + 1] = payload
      receipts[#receipts + 1] = next_order(organization, ARGV[i + 2])
      receipts[#receipts + 1] = job
      in_line[#in_line + 1] = number(next_virtual_time(organization, tonumber(ARGV[i + 3])))
      in_line[#in_line + 1] = job
      add(waiting, organization, 1)
      hold(organization, 'waiting', more_bytes)
      count_accepted(organization, more_bytes)
    end
  end
  if #payloads > 0 then
    redis.call('MSETNX', unpack(payloads)) -- none is there: what may only add can't overwrite
    call_for_all('ZADD', key.accepted, receipts)
    call_for_all('ZADD', key.queue, in_line)
    count('accepted', #payloads / 2)
    write_flows()
    wake_one()
  end
  return results
end

fetch_flows()

if none_is_known() then
  local results = accept_plainly()
  write_tallies()
  return results
end
