-- discard: a dead letter is given up for good.
--
-- Arguments: job, retention (ms).
-- Result: 'discarded', or 'absent' without such a dead letter.
-- Transition: dead → done, so that a late redelivery doesn't bring it back.

local job, organization = ARGV[1], organization_of(ARGV[1])
local event_id = redis.call('HGET', key.dead_letter .. job, 'event_id')
if not event_id then return finish('absent') end
if event_id ~= '' then
  local name = mark_name(organization, event_id)
  if redis.call('GET', name) == 'dead:' .. key.in_mark(job) then
    with_seldom()
    -- Of which version the next worker is nobody knows. To an earlier one a redelivery is `conflicting`, as is
    -- that of any event where somebody goes back to it.
    end_told(redis.pcall('ZCOUNT', key.workers_seen, number(now_ms()), '+inf') == 0)
    local mark = done_mark(job, discarded_by_hand, cmsgpack.pack(history_of_letter(job)))
    redis.call('SET', name, mark, 'PX', ARGV[2])
  end
end
remove_record(organization, job)
count('discarded')
return finish('discarded')
