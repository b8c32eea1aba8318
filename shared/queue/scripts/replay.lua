-- replay: a dead letter is given another life.
--
-- Arguments: job, who replays it (or left out).
-- Result: 'queued', 'known' when it waits already, or 'absent' without such a dead letter, or where
--   it holds no payload.
-- Transition: dead → queued, with the receipt time and the order that it had. Record and mark stay: `mark`
--   revives the event, and removes the record in the same step. The record bears `by_hand`, which says
--   who ('1' where nobody did), and when until then, also where the job waits already: a redelivery might be held, a replay never is.

local job = ARGV[1]
local record = key.dead_letter .. job
local payload, received_at, order = unpack(redis.call('HMGET', record, 'payload', 'received_at',
  'order'))
-- Of a payload that was lost there is nothing to put in line; it would keep a redelivery's out.
if not payload or payload == '' then return finish('absent') end
local who = ARGV[2] ~= nil and ARGV[2] ~= '' and ARGV[2] or '1'
if redis.call('HSETNX', record, 'by_hand', who) == 1 then
  redis.call('HSET', record, 'replayed_at', number(now_ms()))
end
if redis.call('EXISTS', key.job .. job) == 1 and has_place(job) then return finish('known') end

-- Whatever else stands under its name: nobody has put it in line.
redis.call('SET', key.job .. job, payload)
put_in_line(job, payload, order or received_at, retry_time)
count('replayed')
wake_one()
return finish('queued')
