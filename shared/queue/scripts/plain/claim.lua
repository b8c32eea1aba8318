-- claim, where nothing is due and all that is first in line may be given, as mostly it may.
--
-- Of what isn't as plain nothing is changed here: it is left to the rest of the script.

local most, lease, base = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local most_bytes, suspect_from, is_keyed = tonumber(ARGV[6]), tonumber(ARGV[8]), ARGV[11] == '1'
local now = now_ms()
-- A flood that has to be parked is looked at in small steps: others wait for Redis meanwhile.
local most_looks, looks_at_once = 256, 128
local until_when = number(now + lease)

-- Payloads are read some at a time: twice as many as the last time, while all have been small. Once
-- one was large, only those for which there is room: Redis serves nobody while it reads megabytes
-- that are not given. To ask for every length would cost small ones more than all that saves. What is
-- longer than `aside` the worker reads by itself: through a script a megabyte costs 2 ms, else a tenth.
local payloads, at_once, large, is_large, aside = {}, 1, 16384, ARGV[12] == '1', 65536

local function asks_plainly()
  return most > 0 and most <= most_looks and not is_keyed and not is_large and not ARGV[13]
    and redis.call('EXISTS', key.unread .. base, key.suspects, key.duty, key.rates, key.breakers,
      key.due) == 0
end

-- Who is first in line, by organization, where each of these may have as many more; and what runs then.
local function plainly_first(page)
  local numbers, names, running = {}, {}, {}
  for i = 1, math.min(#page, 2 * most), 2 do
    local organization = organization_of(page[i])
    if not numbers[organization] then names[#names + 1] = organization end
    numbers[organization] = (numbers[organization] or 0) + 1
  end
  fetch_profiles(names)
  for i, runs in ipairs(redis.call('HMGET', key.running, unpack(names))) do
    local organization = names[i]
    local then_running = (tonumber(runs) or 0) + numbers[organization]
    local is_free = profile_of(organization).breaker == 'closed' and not must_wait(organization)
    if not is_free or then_running > cap_of(organization) then return nil end
    running[#running + 1] = organization
    running[#running + 1] = then_running
  end
  return running
end

local function are_plainly_small(jobs)
  local bytes, first = 0, 1
  while first <= #jobs do
    local names, last = {}, math.min(first + at_once - 1, #jobs)
    for i = first, last do names[#names + 1] = key.job .. jobs[i] end
    for i, payload in ipairs(redis.call('MGET', unpack(names))) do
      payloads[jobs[first + i - 1]] = payload
      bytes = bytes + (payload and #payload or math.huge)
      is_large = is_large or payload and #payload > large
    end
    at_once = math.min(2 * at_once, 16)
    if is_large or bytes > most_bytes then return false end
    first = last + 1
  end
  return true
end

-- What is answered of each, and what to write.
local function give_plainly(page, jobs)
  local given, claims, leases = {}, {}, {}
  for place, claim in ipairs(redis.call('HMGET', key.claims, unpack(jobs))) do
    local job, token = jobs[place], base .. string.format('%02x', place - 1)
    claims[#claims + 1] = job
    if claim then
      local attempts, ended, event_id = string.match(claim, '^:(%d+):(%d+):[^:]*:(.*)$')
      ended = tonumber(ended)
      if not attempts or ended >= suspect_from then return nil end
      given[place] = { job, token, tonumber(attempts), ended }
      claims[#claims + 1] = token .. ':' .. attempts .. ':' .. ended + 1 .. ':' .. page[2 * place] .. ':'
        .. event_id
    else
      given[place] = { job, token, 0, 0 }
      claims[#claims + 1] = token .. ':0:1:' .. page[2 * place] .. ':'
    end
    leases[#leases + 1] = until_when
    leases[#leases + 1] = job
  end
  return given, claims, leases
end

local function claim_plainly()
  local deferred = redis.call('ZRANGE', key.queue, key.deferred_from, '+inf', 'BYSCORE', 'LIMIT', 0, 1,
    'WITHSCORES')
  local next_due = tonumber(deferred[2]) or math.huge
  if next_due <= now then return nil end
  local page = redis.call('ZRANGE', key.queue, '-inf', '(' .. key.deferred_from, 'BYSCORE', 'LIMIT', 0,
    most + 1, 'WITHSCORES')
  if #page == 0 then return { now, '', next_due < math.huge and math.ceil(next_due - now) or -1, 0 } end
  local running, jobs = plainly_first(page), {}
  if not running then return nil end
  for i = 1, math.min(#page, 2 * most), 2 do jobs[#jobs + 1] = page[i] end
  local given, claims, leases = give_plainly(page, jobs)
  if not given or not are_plainly_small(jobs) then return nil end
  redis.call('HSET', key.claims, unpack(claims))
  redis.call('ZADD', key.queue, unpack(leases))
  redis.call('HSET', key.running, unpack(running))
  raise_system_time(tonumber(page[2 * #jobs]))
  local has_more = #page > 2 * most
  if has_more then wake_one() end
  local wait = math.ceil(math.min(next_due - now, lease))
  local result = { now, has_more and 'more' or '', wait, 0 }
  for _, each in ipairs(given) do
    each[5] = payloads[each[1]]
    result[#result + 1] = each
  end
  return result
end

do
  local result = asks_plainly() and claim_plainly()
  if result then return result end
end
