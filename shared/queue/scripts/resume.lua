-- resume: an organization's events go on, in the order of their acceptance.
--
-- Arguments: organization, and how many of its events may start a second until none waits ('': a few,
--   and twice as many each second).
-- Result: 1, or 0 when it was neither paused nor held, by its handlers or its breaker, nor has
--   anything parked that is to go on at a rate.
-- Transition: parked → queued, up to the free slots and the starts that are due; each slot that is
--   freed, and each start, brings the next.
--   Breaker open or trying → closed: the operator knows that the cause is gone.

-- First, since an operator's rights of an earlier version reach to neither rates nor holds: what was
-- ended by half would leave its events parked. From here on what is parked counts as freed.
any_rates()
local resumed = lift_hold(ARGV[1])
if redis.call('HDEL', key.organizations, key.pause .. ARGV[1]) == 1 then resumed = 1 end
profile_of(ARGV[1]).paused = false
if profile_of(ARGV[1]).breaker ~= 'closed' then
  close_breaker(ARGV[1])
  resumed = 1
end
with_seldom()
if ARGV[2] and ARGV[2] ~= '' then
  if begin_slowly(ARGV[1], ARGV[2], '0') then resumed = 1 end
elseif resumed == 1 then
  begin_slowly(ARGV[1])
end
return finish(resumed)
