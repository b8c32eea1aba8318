-- halt: a mover gets an organization to itself, and its events wait: for a moment, or until it has moved.
--
-- Arguments: organization, the mover's token (hex), for how long it has it (ms), the number of the
--   partition to which it is to go; 'take', and once it has it 'keep', 'wait', 'go on', 'stay', 'leave', or
--   'undo', who leaves, too, and has it go on where it stays, and has not departed; for how long they wait
--   (ms), then the jobs that keep a slot for their retry. Or 'close', where it is expected by the mover with
--   this token, from the partition of this number, which it has not left and will not: where nothing has
--   been accepted of it here, nothing is expected any more.
-- Result: {'halted', how many of its events workers hold, and where they stay: the lowest virtual time
--   that one may have, the last ones of its flow and of its retries, and its last order}; or
--   {'taken', for how long (ms) another mover has it}, {'lost', 0} where it is this one's no more, {'to',
--   the partition to which it is on its way}, {'closed', 0}.
-- Transition: none at once; the next claims park what comes up. What only waits goes on by itself, should
--   the mover be gone; what is to stay does so once workers hold nothing of it, and nobody but 'undo' resumes
--   it then.

local organization, token, to, what = ARGV[1], ARGV[2], ARGV[4], ARGV[5]
local now = now_ms()
local why = 'it moves to another partition'

-- Once it has departed, there stands an order behind that.
local function undo()
  local was_paused = string.match(redis.call('HGET', key.moving, organization) or '', '^out:%d+:([01])$')
  if not was_paused then return end
  redis.call('HDEL', key.moving, organization)
  if was_paused == '1' then return end
  redis.call('HDEL', key.organizations, key.pause .. organization)
  profile_of(organization).paused = false
  freed[organization] = true
  wake_one()
end

local function close()
  local from = string.match(redis.call('HGET', key.moving, organization) or '', '^in:(%d+):')
  if from ~= to or not is_the_movers(organization, token) then return 'lost' end
  if redis.call('HEXISTS', key.waiting, organization) == 1 then return 'halted' end
  redis.call('HSET', key.moved, organization, from)
  redis.call('HDEL', key.moving, organization, lock_field .. organization)
  redis.call('HDEL', key.organizations, key.pause .. organization)
  return 'closed'
end

if what == 'close' then return finish({ close(), 0 }) end

local holder, until_when =
  string.match(redis.call('HGET', key.moving, lock_field .. organization) or '', '^(%x+):(%d+)$')
if what == 'take' and holder and tonumber(until_when) > now then
  return finish({ 'taken', tonumber(until_when) - now })
elseif what ~= 'take' and holder ~= token then
  return finish({ 'lost', 0 })
elseif what == 'leave' or what == 'undo' then
  if what == 'undo' then undo() end
  redis.call('HDEL', key.moving, lock_field .. organization)
  return finish({ 'halted', 0 })
end
local way = redis.call('HGET', key.moving, organization)
local before = way and string.match(way, '^out:(%d+):')
if before and before ~= to then return finish({ 'to', tonumber(before) }) end
redis.call('HSET', key.moving, lock_field .. organization,
  token .. ':' .. number(now + tonumber(ARGV[3])))

local function holds_by_itself()
  local hold = redis.call('HGET', key.organizations, key.hold .. organization)
  return hold and string.match(hold, '^%d+:(.*)$') ~= why, hold
end

-- Not as a hold ends else: nobody's system has only come back.
local function go_on()
  local is_others, hold = holds_by_itself()
  if is_others or not hold then return end
  redis.call('ZREM', key.due, key.hold .. organization)
  redis.call('HDEL', key.organizations, key.hold .. organization)
  profile_of(organization).held_until = nil
  freed[organization] = true
end

local function stay()
  local was_paused = redis.call('HSETNX', key.organizations, key.pause .. organization, why) == 0
  profile_of(organization).paused = true
  redis.call('HSET', key.moving, organization, 'out:' .. to .. ':' .. (was_paused and '1' or '0'))
  go_on()
end

-- Claims begin with what is lowest, so that little is below the system's time.
local most_below = 1000

local function lowest_time()
  local lowest = system_time()
  local first = redis.call('ZRANGE', key.parked .. organization, 0, 0, 'WITHSCORES')
  lowest = math.min(lowest, tonumber(first[2]) or lowest)
  local below = redis.call('ZRANGE', key.queue, '-inf', '(' .. number(lowest), 'BYSCORE', 'LIMIT', 0,
    most_below, 'WITHSCORES')
  for i = 1, #below, 2 do
    if organization_of(below[i]) == organization or i == 2 * most_below - 1 then
      return tonumber(below[i + 1])
    end
  end
  return lowest
end

local leased = leased_of(organization, 7)
if what == 'wait' and not holds_by_itself() then
  hold_back(organization, now + tonumber(ARGV[6]), why)
elseif what == 'go on' then
  go_on()
elseif what == 'stay' and leased == 0 and not before then
  stay()
end
if what ~= 'stay' or leased > 0 then return finish({ 'halted', leased }) end
local flow, retries, order = unpack(redis.call('HMGET', key.flows, organization,
  'retry:' .. organization, 'order:' .. organization))
return finish({ 'halted', 0, number(lowest_time()),
  number(math.max(system_time(), as_virtual_time(flow))), retries or '', order or '0' })
