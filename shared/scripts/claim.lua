-- claim: a worker takes what is due, in virtual order, a batch at a time.
--
-- Arguments: worker, how many jobs at the most, lease (ms), token base (hex), how many jobs the
--   worker holds already, bytes of payload at the most.
-- Result: {Redis's time (ms), 'more' | 'quiet' | '', milliseconds until the next deferred job is
--   due or -1, then for each job {job, token, attempts with an outcome, claims without one before
--   this, payload}}. `more` means that others are in line still; `quiet` asks the worker to take
--   no more until it holds nothing, since a suspect waits for it.
-- Transitions: deferred and due → queued; expired lease → queued; queued → leased; queued →
--   parked (organization paused, its breaker open, or at its cap); queued → removed (no payload);
--   breaker open → trying, and parked → queued for the one event that it lets through.

local worker, most, lease, base = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local holding, most_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
local now = now_ms()
local most_promoted, most_looks = 256, 1024
local suspect_from = 2

-- Crash recovery is no mechanism of its own: an expired lease is a job that is due.
local function promote(job)
  local claim, first = read_claim(job)
  if first then adopt_foreign(job, now) end
  if claim.token ~= '' then
    if claim.claims > 0 then count('lease_expired') end
    clear_token(claim)
    write_claim(claim)
  end
  -- In order, the job goes back to the place that it had.
  local had_place = in_order(claim.organization) and claim.virtual > 0
  local virtual = had_place and claim.virtual or retry_time(claim.organization)
  redis.call('ZADD', key.queue, number(virtual), job)
end

local due = redis.call('ZRANGE', key.queue, key.deferred_from, now, 'BYSCORE', 'LIMIT', 0,
  most_promoted)
for _, job in ipairs(due) do promote(job) end

-- A breaker whose time is over lets one event through.
local breaker = redis.call('ZRANGE', key.breakers, 0, 0, 'WITHSCORES')
while breaker[1] and tonumber(breaker[2]) <= now do
  redis.call('ZREM', key.breakers, breaker[1])
  set_breaker(breaker[1], 'trying', '')
  unpark(breaker[1])
  breaker = redis.call('ZRANGE', key.breakers, 0, 0, 'WITHSCORES')
end
-- Slots that promotion freed count in this very claim.
write_tally(key.running, slots)
slots = {}

local running = {}

local function slot_is_free(organization)
  running[organization] = running[organization] or running_of(organization)
  return running[organization] < cap_of(organization)
end

local function park(job, organization, virtual)
  redis.call('ZREM', key.queue, job)
  redis.call('ZADD', key.parked .. organization, number(virtual), job)
end

local jobs, bytes, highest, skipped, looks = {}, 0, 0, 0, 0
local alone, quiet, full = false, false, false

local function give(claim, virtual, payload)
  claim.virtual = virtual
  local result = { claim.job, base .. string.format('%02x', #jobs), claim.attempts, claim.claims,
    payload }
  set_token(claim, result[2])
  claim.claims = claim.claims + 1
  write_claim(claim)
  running[claim.organization] = running[claim.organization] + 1
  redis.call('ZADD', key.queue, number(now + lease), claim.job)
  highest = math.max(highest, virtual)
  bytes = bytes + #payload
  jobs[#jobs + 1] = result
end

-- A job whose claims keep ending without an outcome may be what ends the workers: it is given to
-- one that holds nothing else. Somebody has to become that one.
local function suspect_must_wait(job)
  if holding == 0 and #jobs == 0 then
    alone = true
    return false
  end
  local on_duty = duty()
  if not on_duty or on_duty == worker then
    redis.call('SET', key.duty, worker .. '\n' .. job, 'PX', lease)
    quiet = true
  end
  return true
end

-- Answers whether the job has left the part of the queue that is in line.
local function look_at(job, virtual)
  local organization = organization_of(job)
  if must_wait(organization) or not slot_is_free(organization) then
    park(job, organization, virtual)
    return true
  end
  local claim = read_claim(job)
  if claim.claims >= suspect_from and suspect_must_wait(job) then
    -- In order, whoever stands behind it waits with it.
    if in_order(organization) then running[organization] = math.huge end
    return false
  end
  local payload = redis.pcall('GETEX', key.job .. job, 'PERSIST')
  if type(payload) ~= 'string' then -- gone, or a foreign value that is no string
    remove_job(claim)
    freed[organization] = true -- it may have been brought back in line for a slot
    count('dropped')
    return true
  end
  if #jobs > 0 and bytes + #payload > most_bytes then
    full = true
    return false
  end
  give(claim, virtual, payload)
  if profile_of(organization).breaker == 'trying' then set_breaker(organization, 'trying', job) end
  return true
end

local function enough()
  return alone or full or #jobs >= most or looks >= most_looks
end

-- Once it holds nothing, who is on duty takes its suspect before all others: there might always be
-- somebody ahead of it in line.
local on_duty, suspect = duty()
if on_duty == worker and holding == 0 and most > 0 then
  redis.call('DEL', key.duty)
  local virtual = tonumber(redis.call('ZSCORE', key.queue, suspect))
  if virtual and virtual < key.deferred_from then look_at(suspect, virtual) end
end

while not enough() do
  local page = redis.call('ZRANGE', key.queue, '-inf', '(' .. key.deferred_from, 'BYSCORE',
    'LIMIT', skipped, most, 'WITHSCORES')
  if #page == 0 then break end
  for i = 1, #page, 2 do
    if enough() then break end
    looks = looks + 1
    if not look_at(page[i], tonumber(page[i + 1])) then skipped = skipped + 1 end
  end
end

raise_system_time(highest)
local in_line = redis.call('ZCOUNT', key.queue, '-inf', '(' .. key.deferred_from)
local more = in_line > skipped or full or #due == most_promoted
if more then wake_one() end

local next_due = redis.call('ZRANGE', key.queue, key.deferred_from, '+inf', 'BYSCORE', 'LIMIT', 0, 1,
  'WITHSCORES')
local soonest = math.min(tonumber(next_due[2]) or math.huge, tonumber(breaker[2]) or math.huge)
local wait = soonest < math.huge and math.max(0, math.ceil(soonest - now)) or -1
local result = { now, quiet and 'quiet' or (more and 'more' or ''), wait }
for _, job in ipairs(jobs) do result[#result + 1] = job end
return finish(result)
