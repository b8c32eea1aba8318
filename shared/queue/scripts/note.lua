-- note: what an operator has done is kept, with the last ones before it.
--
-- Arguments: what it was (JSON), how many are kept.
-- Result: 'noted'.
-- Transition: none of a job's.

redis.call('LPUSH', key.actions, ARGV[1])
redis.call('LTRIM', key.actions, 0, ARGV[2] - 1)
return finish('noted')
