-- stop: whoever goes on with a run over dead letters is asked to end it.
--
-- Arguments: its id, who asks.
-- Result: 'asked', or 'absent' where it isn't kept any more.
-- Transition: none of a job's.

if redis.call('HEXISTS', key.runs, ARGV[1] .. ':hold') == 0 then return finish('absent') end
redis.call('HSET', key.runs, ARGV[1] .. ':stop', ARGV[2])
return finish('asked')
