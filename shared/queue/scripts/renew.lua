-- renew: a worker's sign of life, for itself and for the jobs that it holds.
--
-- Arguments: worker, what it says of itself (JSON), its slots, lease (ms), then for each job:
--   job, token.
-- Result: {1 if the worker was not known, else 0, then the places (from 1) of the jobs that somebody
--   else holds by now}. A worker that is unknown though it has been here before: Redis has lost what
--   it knew (a flush, an empty primary), the caps and weights of organizations among it.
-- Transition: leased → leased, for another lease; parked → queued where more slots raise a cap, and
--   where a clock that was set back has put off a start or the end of a hold.
--   Beside that, what is still said of suspects that are gone goes, a few a call.

local worker, description, own_slots, lease = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local now = now_ms()

local lost_kept, most_lost = 24 * 3600 * 1000, 20

-- Of the last ones that went without a word it stays known until when they counted, what they said of
-- themselves, and what they were at: MessagePack. Where that can't be kept, leases are renewed all the
-- same: it is for operators alone.
local function note_gone(gone, counted_until)
  local lost = redis.call('HGETALL', key.workers_lost)
  if #lost >= 2 * most_lost then
    local oldest, its_end = nil, math.huge
    for i = 1, #lost, 2 do
      local ok, told = pcall(cmsgpack.unpack, lost[i + 1])
      local at = ok and type(told) == 'table' and tonumber(told[1]) or 0
      if at < its_end then oldest, its_end = lost[i], at end
    end
    redis.call('HDEL', key.workers_lost, oldest)
  end
  local told = redis.call('HGET', key.workers, gone) or ''
  local at_work = redis.call('HGET', key.workers_now, gone) or ''
  redis.call('HSET', key.workers_lost, gone, cmsgpack.pack({ counted_until, told, at_work }))
  redis.call('PEXPIRE', key.workers_lost, lost_kept)
end

local is_new = redis.call('HSET', key.workers, worker, own_slots .. ':' .. description)
redis.call('ZADD', key.workers_seen, now + lease, worker)
local gone = redis.call('ZRANGE', key.workers_seen, '-inf', '(' .. now, 'BYSCORE', 'WITHSCORES')
for i = 1, #gone, 2 do
  -- All may be, once Redis is back: of a thousand, only those are noted that would stay.
  if #gone - i < 2 * most_lost then pcall(note_gone, gone[i], tonumber(gone[i + 1])) end
  redis.call('ZREM', key.workers_seen, gone[i])
  redis.call('HDEL', key.workers, gone[i])
  redis.pcall('HDEL', key.workers_now, gone[i])
end
if is_new == 1 then redis.pcall('HDEL', key.workers_lost, worker) end
local all, reads_told_marks = 0, true
for _, raw in ipairs(redis.call('HVALS', key.workers)) do
  all = all + (tonumber(string.match(raw, '^(%d+):')) or 0)
  reads_told_marks = reads_told_marks and string.find(raw, '"marks":3', 1, true)
end
-- Judged here, since whoever joins or goes is known here: `settle` looks whether the name is there.
if reads_told_marks then
  redis.call('SET', key.told_marks, '3', 'PX', lease)
else
  redis.call('DEL', key.told_marks)
end
-- Other slots are another default cap, so perhaps a higher one. Whom that doesn't reach at once is
-- looked at by and by, or when the next of its jobs ends.
local looked_at = 10
if all ~= tonumber(redis.call('GET', key.slots)) then
  redis.call('SET', key.slots, all)
  looked_at = 500
end
for _, organization in ipairs(redis.call('SRANDMEMBER', key.held_back, looked_at)) do
  if redis.call('EXISTS', key.parked .. organization) == 1 then
    freed[organization] = true
  else
    redis.call('SREM', key.held_back, organization)
  end
end
if duty() == worker then redis.call('PEXPIRE', key.duty, lease) end

-- The scripts of an older version end a job and leave here what was known of it beside its claim.
for _, name in ipairs({ key.suspects, key.throttled, key.failures, key.redelivered }) do
  local some = redis.call('HRANDFIELD', name, 10)
  if #some > 0 then
    for i, accepted in ipairs(redis.call('ZMSCORE', key.accepted, unpack(some))) do
      if not accepted then
        local bytes = bytes_of_history(some[i])
        redis.call('HDEL', name, some[i])
        hold(organization_of(some[i]), 'waiting', bytes_of_history(some[i]) - bytes)
      end
    end
  end
end

-- Nor does an older version pass on a turn; and whoever waits in one that nobody has would do so for
-- ever, if somebody's hand has taken away the job before it, or the turn itself.
local function mend_turns(job)
  local turn = turn_of(job)
  if not turn then
    redis.call('HDEL', key.turns, job)
  elseif not redis.call('ZSCORE', key.accepted, job) then
    leave_turns(job)
    count('turns_mended')
  elseif turn.waits and not stands_in_line(job, turn) then
    call_up(job, turn)
    count('turns_mended')
  else
    for _, name in ipairs({ turn.key, turn.state }) do
      if name ~= '' then pass_on(name) end
    end
  end
end

if any_turns() then
  for _, job in ipairs(redis.pcall('HRANDFIELD', key.turns, 10)) do mend_turns(job) end
end

-- After a fail-over, the clock of another Redis may be hours behind what says when to look again.
for _, name in ipairs(redis.call('ZRANDMEMBER', key.due, 10)) do
  local kind, organization = string.match(name, '^(%a+:)(.*)$')
  if kind == key.rate then
    freed[organization] = true
  elseif kind == key.hold and not profile_of(organization).held_until then
    lift_hold(organization)
  end
end

local jobs = {}
for i = 5, #ARGV, 2 do jobs[#jobs + 1] = ARGV[i] end
fetch_claims(jobs)
local until_when, result = number(now + lease), { is_new }
for i = 5, #ARGV, 2 do
  if held_claim(ARGV[i], ARGV[i + 1]) then
    places[ARGV[i]] = until_when
  else
    result[#result + 1] = (i - 3) / 2
  end
end
return finish(result)
