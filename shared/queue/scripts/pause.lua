-- pause: an organization's events wait until `resume`.
--
-- Arguments: organization, why, who ('' or left out where nobody says so).
-- Result: 1, or 0 when it was paused already.
-- Transition: none at once; the next claims park what comes up.

local why, who = ARGV[2], ARGV[3] or ''
-- Behind it, since an earlier version shows all that there is.
if who ~= '' then why = why .. '\n' .. number(now_ms()) .. ':' .. who end
return finish(redis.call('HSETNX', key.organizations, key.pause .. ARGV[1], why))
