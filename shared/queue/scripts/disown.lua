-- disown: a worker says that nobody will read the answer to one of its claims.
--
-- Arguments: token base of that claim (hex), for how long to remember it (ms).
-- Result: 'disowned'.
-- Transition: none of a job's. What the claim has taken comes back with its lease, and then doesn't
--   count as claimed; a claim that Redis gets only after this takes nothing.

redis.call('SET', key.unread .. ARGV[1], '1', 'PX', ARGV[2])
return finish('disowned')
