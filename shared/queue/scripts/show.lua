-- show: what a worker is at, for operators.
--
-- Arguments: worker, what takes long in it (JSON); empty where nothing does.
-- Result: 1, or 0 where the worker has left.
-- Transition: none of a job's.

local worker, told = ARGV[1], ARGV[2]
local is_here = redis.call('HEXISTS', key.workers, worker)
if is_here == 1 and told ~= '' then
  -- Its own clock may be another than that of whoever reads it.
  if #told > 2 then told = string.format('{"seen":%.3f,', now_ms() / 1000) .. string.sub(told, 2) end
  redis.call('HSET', key.workers_now, worker, told)
else
  redis.call('HDEL', key.workers_now, worker)
end
return finish(is_here)
