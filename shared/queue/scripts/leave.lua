-- leave: a worker that stops takes its slots out of the count.
--
-- Arguments: worker.
-- Result: 'left'.
-- Transition: none of a job's.

redis.call('ZREM', key.workers_seen, ARGV[1])
redis.pcall('HDEL', key.workers_now, ARGV[1])
redis.pcall('HDEL', key.workers_lost, ARGV[1])
local raw = redis.call('HGET', key.workers, ARGV[1])
if raw then
  redis.call('HDEL', key.workers, ARGV[1])
  redis.call('DECRBY', key.slots, tonumber(string.match(raw, '^(%d+):')) or 0)
end
if duty() == ARGV[1] then redis.call('DEL', key.duty) end
return finish('left')
