-- resume: an organization's events go on, in the order of their acceptance.
--
-- Arguments: organization.
-- Result: 1, or 0 when it was not paused.
-- Transition: parked → queued, up to the free slots; each slot that is freed brings the next.

local resumed = redis.call('HDEL', key.organizations, key.pause .. ARGV[1])
freed[ARGV[1]] = true
return finish(resumed)
