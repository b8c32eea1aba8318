-- join: all of an organization has come: from now on its events are handled here.
--
-- Arguments: organization, the mover's token (hex), how often it has told of some, as in `arrive`; then what
--   was said of it where it comes from, '' where nothing was: why it is paused, cap and weight, its breaker,
--   from when on that lets one through (ms), until when it is held and why, when the next start is due, its
--   slow beginning, bytes of its marks, of its state, its rate, how its handlers fail.
-- Result: 'joined'; 'less' where not all is here that it has told; or 'lost' where the organization is
--   another mover's by now, or has arrived already.
-- Transition: parked → queued, up to the free slots and the starts that are due, unless it is paused.

local organization = ARGV[1]
local way = redis.call('HGET', key.moving, organization)
if not string.match(way or '', '^in:') or not is_the_movers(organization, ARGV[2]) then
  return finish('lost')
end
if not has_all(organization, ARGV[2], ARGV[3]) then return finish('less') end

local function say(name, field, value)
  if value == '' then redis.call('HDEL', name, field) else redis.call('HSET', name, field, value) end
end

local pause, profile, breaker, breaker_due, hold_said, next_start, ramp = unpack(ARGV, 4, 10)
say(key.organizations, key.pause .. organization, pause)
-- Workers say these in all partitions; or they will.
if profile ~= '' and redis.call('HSETNX', key.organizations, organization, profile) == 1 then
  say(key.rates, organization, ARGV[13])
end
local tried = string.match(breaker, '^trying:(.+)$')
if tried then breaker = 'trying:' .. key.from_mark(tried) end
say(key.organizations, key.breaker .. organization, breaker)
if breaker_due ~= '' then redis.call('ZADD', key.breakers, breaker_due, organization) end
say(key.organizations, key.hold .. organization, hold_said)
if hold_said ~= '' then
  redis.call('ZADD', key.due, string.match(hold_said, '^%d+'), key.hold .. organization)
end
say(key.organizations, key.trouble .. organization, ARGV[14] or '')
say(key.rates, 'next:' .. organization, next_start)
say(key.rates, 'ramp:' .. organization, ramp)
say(key.bytes, organization .. ':marks', ARGV[11])
say(key.bytes, organization .. ':state', ARGV[12])
redis.call('DEL', key.recount) -- it would take what has come for what was never said
redis.call('HDEL', key.moving, organization, lock_field .. organization)
freed[organization] = true
wake_one()
return finish('joined')
