-- expire: dead letters that nobody acted on in time go, with their marks.
--
-- Arguments: organization, died before (ms), how many of these to pass over, how many to look at at the
--   most.
-- Result: {how many were looked at, how many went}. One that waits for its replay stays.
-- Transition: dead → gone, after the retention that the operator has set. A redelivery after that
--   is judged by its age.

local organization = ARGV[1]
local jobs = redis.call('ZRANGE', key.dead .. organization, '-inf', '(' .. ARGV[2], 'BYSCORE',
  'LIMIT', ARGV[3], ARGV[4])
local gone = 0

local function expire(job)
  local event_id = redis.call('HGET', key.dead_letter .. job, 'event_id')
  if event_id and event_id ~= '' then
    local name = mark_name(organization, event_id)
    if redis.call('GET', name) == 'dead:' .. key.in_mark(job) then
      redis.call('DEL', name)
      hold(organization, 'marks', -cost_of_mark(event_id))
    end
  end
  if not remove_record(organization, job) then
    redis.call('ZREM', key.dead .. organization, job)
  end
  count('expired')
  gone = gone + 1
end

for _, job in ipairs(jobs) do
  if redis.call('EXISTS', key.job .. job) == 0 then expire(job) end
end
return finish({ #jobs, gone })
