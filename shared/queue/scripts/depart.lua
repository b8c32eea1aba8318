-- depart: from now on an organization's deliveries go to another partition, which is open for them.
--
-- Arguments: organization, the mover's token (hex), the number of the other partition, how far its flow may
--   have come, how far its order, then the jobs that keep a slot for their retry.
-- Result: 'gone'; 'held' while a worker holds any of its events; 'later' where more has been accepted than
--   the other partition expects; or 'lost' where the organization is another mover's by now.
-- Transition: none of a job's. `enqueue` answers 'moved' in the step in which it would have enqueued.

local organization, to = ARGV[1], ARGV[3]
local way = redis.call('HGET', key.moving, organization)
local stays = string.match(way or '', '^out:%d+:[01]')
if not stays or not is_the_movers(organization, ARGV[2]) then return finish('lost') end
if leased_of(organization, 6) > 0 then return finish('held') end
local flow, order = unpack(redis.call('HMGET', key.flows, organization, 'order:' .. organization))
if (tonumber(flow) or 0) > tonumber(ARGV[4]) or (tonumber(order) or 0) > tonumber(ARGV[5]) then
  return finish('later')
end
redis.call('HSET', key.moved, organization, to)
-- What a stock producer may put in line here all the same comes behind that: it has not been copied.
redis.call('HSET', key.moving, organization, stays .. ':' .. ARGV[5])
return finish('gone')
