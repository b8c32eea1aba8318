-- mark: the SETNX of the event id, fenced by the claim's token.
--
-- Arguments: how long the mark of a finished event is kept (ms), how many jobs there are where the
--   worker has a handler with a key (else ''), then for each job: job, token, event id, until when
--   (ms; '' is for ever) an event without a mark is one that wasn't finished. After that, the mark of
--   a finished one may have expired. Behind them, for each event that has a key: its job's place
--   (from 1), the key, the handler of whose events only the newest is to run (or ''), and for how many
--   ms these are gathered.
-- Result: Redis's time (ms), then for each job one of
--   'fresh'        there was no mark; it is pending by this job now
--   'unprovable'   there was no mark, and it is too late to say what that means; there still is none
--   'own'          it was pending by this job: a crash came between
--   'taken-over'   it was pending by a job whose payload is gone; what was left of that one goes
--   'revived'      it was dead: the record goes, the attempts start anew
--   'held'         it is dead and stays so: redeliveries have revived it too often, or just now
--   'held-conflicting'  the same, and it has died as another job, so with other bytes
--   'duplicate'    the event is done, or pending elsewhere
--   'conflicting'  the same, and that other job has other bytes
--   'lost'         somebody else holds the job
--   'in_line'      it waits for its turn: it is held no more, and comes back by itself
--   'later'        it asks again in a moment, or once its like are gathered; it is held no more
--   'superseded'   a newer event stands for it: it is done
--   'refused:why'  Redis holds something else under one of the names
--   Where the event stands for others, {one of these, their ids…}; where it waits and an older one that
--   did has been superseded, {'in_line', that one's id}.
-- Transition: leased → leased, with the event id learned; mark absent or dead → pending; leased → in
--   turn, deferred or done.

-- One organization's jobs are named by their bytes, so another job is other bytes.
local function duplicate(claim, holder)
  return holder == key.in_mark(claim.job) and 'duplicate' or 'conflicting'
end

local most_revivals, shortest_pause = 20, 60000 -- times in all; ms between two of them

-- Whether one more redelivery is one too many; if it isn't, it counts.
local function must_hold(claim, mark)
  local name = revivals_name(claim)
  if not standing_letter(claim, mark) then
    redis.call('DEL', name)
    return false
  end
  local number, last = string.match(redis.call('GET', name) or '', '^(%d+):(%d+)$')
  number, last = tonumber(number) or 0, tonumber(last) or 0
  local is_early = last <= now and now < last + shortest_pause -- Redis's clock may be set back
  if number >= most_revivals or is_early then return true end
  redis.call('SET', name, number + 1 .. ':' .. small_number(now), 'PX', retention)
  return false
end

local function mark(claim, name, event_id, provable_until)
  local raw = read_mark(name)
  claim.event_id = event_id
  if not raw then
    -- Taken here, it would be its own, and so be handled, after a crash before its end.
    if provable_until and now > provable_until then return 'unprovable' end
    take_mark(name, claim.job)
    hold(claim.organization, 'marks', cost_of_mark(event_id))
    return 'fresh'
  end
  local state, holder = string.match(raw, '^(%a+):(.*)$')
  if state == 'done' then return duplicate(claim, done_by(holder)) end
  if state == 'dead' then
    if must_hold(claim, raw) then return holder == key.in_mark(claim.job) and 'held' or 'held-conflicting' end
    with_seldom()
    take_history(claim.job, key.from_mark(holder))
    remove_record(claim.organization, key.from_mark(holder))
    claim.attempts = 0
    take_mark(name, claim.job)
    count('revived')
    return 'revived'
  end
  if holder == key.in_mark(claim.job) then return 'own' end
  local lost = lost_carrier(raw)
  if state == 'pending' and not lost then return duplicate(claim, holder) end
  if lost then remove_job(read_claim(lost)) end
  take_mark(name, claim.job)
  return 'taken-over'
end

local number_of_jobs = tonumber(ARGV[2])
local is_keyed = number_of_jobs ~= nil
local asked_from = is_keyed and 3 + 4 * number_of_jobs or #ARGV + 1
local jobs, names, asked = {}, {}, {}
for i = 3, asked_from - 1, 4 do
  jobs[#jobs + 1] = ARGV[i]
  names[#names + 1] = mark_name(organization_of(ARGV[i]), ARGV[i + 2])
end
for i = asked_from, #ARGV, 4 do
  asked[tonumber(ARGV[i])] = {
    text = ARGV[i + 1], handler = ARGV[i + 2], quiet = tonumber(ARGV[i + 3]),
  }
end
fetch_claims(jobs)
fetch_marks(names)

-- Whoever is told one of these goes on to a handler.
local is_its_own = { fresh = true, own = true, ['taken-over'] = true, revived = true }

local asking, has_turns = {}, any_turns()
for place, name in ipairs(names) do
  local i = 4 * place - 1
  local claim = not results[place + 1] and held_claim(ARGV[i], ARGV[i + 1])
  local result = results[place + 1] or 'lost'
  if claim then
    result = protected(mark, claim, name, ARGV[i + 2], tonumber(ARGV[i + 3]))
    write_claim(claim)
    -- It spends an attempt, but no handler begins.
    if string.sub(result, 1, 8) == 'refused:' then give_back_start(claim.organization) end
    if is_keyed then decide(claim) end
    local may_ask = asked[place] or has_turns and turn_of(claim.job)
    if may_ask and is_its_own[result] then
      with_seldom()
      asking[#asking + 1] = {
        job = claim.job,
        token = claim.token,
        place = place,
        order = tonumber(order_of(claim.job)),
      }
    end
  end
  results[place + 1] = result
end

-- After all of them, and in their order: one call may bring the later of two events first.
table.sort(asking, function(one, other) return one.order < other.order end)
for _, each in ipairs(asking) do
  local at, wish, ids = each.place + 1, asked[each.place], {}
  -- Another one of the batch may have taken its event over, or it is in it twice.
  local claim = held_claim(each.job, each.token)
  results[at] = claim and (protected(ask, claim, wish, now, retention) or results[at]) or 'lost'
  if claim and not is_its_own[results[at]] then give_back_start(claim.organization) end
  if results[at] == 'in_line' then
    ids = ended_waiting
  elseif is_its_own[results[at]] and wish and wish.handler ~= '' then
    ids = superseded_by(each.job)
  end
  ended_waiting = {}
  if #ids > 0 then results[at] = { results[at], unpack(ids) } end
end
return finish(results)
