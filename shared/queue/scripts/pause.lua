-- pause: an organization's events wait until `resume`.
--
-- Arguments: organization, why.
-- Result: 1, or 0 when it was paused already.
-- Transition: none at once; the next claims park what comes up.

return finish(redis.call('HSETNX', key.organizations, key.pause .. ARGV[1], ARGV[2]))
