-- vacate: nothing is left here of an organization that lives in another partition.
--
-- Arguments: organization, the mover's token (hex).
-- Result: 'vacated'; 'left' where an event or a dead letter of it is here yet, as a stock producer may
--   have put one in line here since; or 'lost' where the organization is another mover's by now.
-- Transition: none of a job's. All that stays is where it has gone to.

local organization = ARGV[1]
local is_gone = redis.call('HEXISTS', key.moved, organization) == 1
if not is_gone or not is_the_movers(organization, ARGV[2]) then return finish('lost') end
if redis.call('HEXISTS', key.waiting, organization) == 1
  or redis.call('HEXISTS', key.buried, organization) == 1 then
  return finish('left')
end
redis.call('HDEL', key.organizations, organization, key.pause .. organization,
  key.breaker .. organization, key.hold .. organization, key.trouble .. organization)
redis.call('HDEL', key.flows, organization, 'retry:' .. organization, 'order:' .. organization,
  nearly_full(organization))
redis.call('HDEL', key.rates, organization, 'next:' .. organization, 'ramp:' .. organization)
redis.call('HDEL', key.bytes, organization .. ':waiting', organization .. ':dead',
  organization .. ':marks', organization .. ':state')
redis.call('HDEL', key.running, organization)
redis.call('HDEL', key.in_turn, organization)
redis.call('ZREM', key.breakers, organization)
redis.call('ZREM', key.due, key.hold .. organization, key.rate .. organization)
redis.call('SREM', key.held_back, organization)
redis.call('DEL', key.parked .. organization, key.undecided .. organization, key.dead .. organization,
  key.recount)
-- Letters that an earlier version has removed may be listed still.
with_seldom()
for _, group in ipairs(redis.call('HKEYS', key.dead_labels .. organization)) do
  local reason = reason_of_group(organization, group, '')
  redis.call('ZREM', key.dead_groups .. reason, organization .. ':' .. group)
  redis.call('DEL', key.dead_group .. organization .. ':' .. group)
end
redis.call('DEL', key.dead_labels .. organization)
redis.call('HDEL', key.moving, organization, lock_field .. organization)
return finish('vacated')
