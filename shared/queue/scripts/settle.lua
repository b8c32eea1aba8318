-- settle: what became of a leased job, and of its event's mark, in one step.
--
-- Arguments: for each row of jobs of which the same is asked: verb, details (MessagePack), how many they
--   are; then for each of them: job, token, bytes of its payload ('' where the worker doesn't know), what
--   the mark is to tell of how the event was handled (or '').
--   done       {retention ms, {{key, sha1 or ''}…} read, {operation…}, a handler worked,
--              received-at ms (0, or none: not known)}
--   retry      {delay ms, breaker, whether the handler blocked its worker's loop (or left out),
--              what is told of the attempt (or left out)}
--   dead       {reason, error, event type, endpoint, received-at ms, an attempt was made, breaker,
--              traceback or '' (or left out), what is told of the attempt (or nil), what it died of: {name of the
--              group, error, place} (or left out)}
--   duplicate  {whether a handler has begun (or left out)}
--   hold       {the same}: a redelivery of a dead event, one of too many; the dead letter stays
--   release    {the same}: its claim doesn't count
--   abandon    {}: its claim counts, since it may be why its worker ends
--   wait       {why, patience ms or nil (for ever)}: this worker can't handle it, another may
--   throttle   {after ms, why, whether a stock arq worker has it (or left out)}: its organization
--              waits for so long, from a second to an hour
--   remove     {}: a job of a function that is not ours, which arq has finished
--   What is told of an attempt: {kind, milliseconds that it took, worker, handler, error, what it says at
--   length}, as `prelude/attempts.lua` keeps it.
--   A handler that failed brings its organization's breaker: {consecutive failures, share of
--   failures, ends needed for the share, cool-off ms}, 0 for what opens none; else nil.
-- Result: for each job one of
--   'done', 'retried', 'dead', 'duplicate', 'held', 'released', 'abandoned', 'waiting', 'throttled',
--   'removed'
--                    it left, as asked or (dead) as a duplicate, or (payload_lost) since it is there again
--   'again'          its mark has changed hands: back to mark
--   'overdue'        it has waited for long enough; it is still held: bury it
--   'conflict'       a value that the handler read has changed: run the handler again
--   'later'          the same, and it is put back in line for that, since its organization has a rate
--   'in_line'        the same, and it waits for its turn to do so: it is held no more
--   'refused:why'    an operation can't be applied; nothing was
--   'lost'           somebody else holds the job
-- Transition: leased → done, deferred, dead, removed, in turn or queued; breaker closed → open, trying →
--   closed or open.

local largest = 9007199254740991 -- 2^53 - 1: beyond it a whole number loses digits

-- In front of a value's key: the turn of it.
local state_turn = 'state:'

-- An expiry as Redis takes it, or an error. To be asked for before the first write.
local function lifetime(ms)
  if type(ms) ~= 'number' or ms % 1 ~= 0 or ms < 1 or ms > largest then
    error('expiry: expected 1 to 2^53 - 1 ms, got ' .. tostring(ms), 0)
  end
  return small_number(ms)
end

-- A value in the state is its JSON; a versioned one is followed by "\n", version, "\n", the id of
-- the event that wrote it, a blank and when that was received (ms). A tombstone has no JSON: it
-- keeps the version of what was deleted. Older workers, which may run beside this one, write no
-- received-at, and take what is behind the blank for a part of the id: they compare it, and keep it.
local function versioned(json, version, written)
  version = string.find(version, '^%-?[%d.e+]+$') and tonumber(version)
  if not version or math.abs(version) == math.huge then return nil end
  if not string.find(written, '%S') then return nil end
  -- Older workers kept the line breaks of a sender's own JSON. A number with a line of its own
  -- comes after one of these.
  local last = #json
  while last > 0 and string.find(json, '^%s', last) do last = last - 1 end
  local byte = string.sub(json, last, last)
  if byte == ',' or byte == ':' or byte == '[' then return nil end
  -- Ids may hold blanks; what this version writes always ends in a received-at.
  local writer, received_at = string.match(written, '^(.*) (%d+)$')
  if not writer or #received_at > 16 then writer, received_at = written, 0 end
  return {
    json = json,
    version = version,
    writer = writer,
    received_at = tonumber(received_at),
    expire = -1,
  }
end

-- The same as `Value.parse` in worker/value.py.
local function parse_state(raw)
  local first = string.find(raw, '\n', 1, true)
  local second = first and string.find(raw, '\n', first + 1, true)
  if not second then return { json = raw, expire = -1 } end
  return versioned(string.sub(raw, 1, first - 1), string.sub(raw, first + 1, second - 1),
      string.sub(raw, second + 1))
    or versioned(string.match(raw, '^(.*)\n([^\n]*)\n([^\n]*)$'))
    or { json = raw, expire = -1 }
end

-- What stands under a name, or an error that names it.
local function raw_state(name)
  local raw = redis.pcall('GET', name)
  if type(raw) == 'table' then error(name .. ': ' .. raw.err, 0) end
  return raw
end

local function read_state(name)
  local raw = raw_state(name)
  if not raw then return { json = '', expire = 0 }, 0 end
  return parse_state(raw), cost_of_state(name, #raw)
end

-- The command that writes a value: nothing about it may fail any more once it is called.
local function command_for(name, value)
  if value.json == '' and not value.version then return { 'DEL', name } end
  local raw = value.json
  if type(raw) ~= 'string' then error('value: expected JSON, got ' .. type(raw), 0) end
  if value.version then
    raw = raw .. '\n' .. number(value.version) .. '\n' .. value.writer .. ' '
      .. number(value.received_at)
  end
  if value.expire == 0 then return { 'SET', name, raw } end
  if value.expire == -1 then return { 'SET', name, raw, 'KEEPTTL' } end
  return { 'SET', name, raw, 'PX', lifetime(value.expire) }
end

-- Byte by byte: `>` on strings would follow the locale of the server.
local function follows(one, other)
  for i = 1, math.min(#one, #other) do
    local a, b = string.byte(one, i), string.byte(other, i)
    if a ~= b then return a > b end
  end
  return #one > #other
end

-- Whether a write of this version, by this event, replaces what is there.
local function is_newer(current, version, event)
  if not current.version then return true end
  if version ~= current.version then return version > current.version end
  if event.received_at ~= current.received_at then return event.received_at > current.received_at end
  return event.id == current.writer or follows(event.id, current.writer)
end

local function written_by(event, json, version, expire)
  return {
    json = json,
    version = version,
    writer = event.id,
    received_at = event.received_at,
    expire = expire,
  }
end

-- Operations are {name, key, expire (ms; 0: never, -1: as it is), …}. Each is a function of the
-- value before, and answers the value after, or nil and why not. They match worker/value.py.
local apply = {}

function apply.put(_, operation)
  return { json = operation[4], expire = operation[3] }
end

function apply.put_if_newer(current, operation, event)
  local version = operation[5]
  if not is_newer(current, version, event) then return current end
  return written_by(event, operation[4], version, operation[3])
end

function apply.increment(current, operation)
  local before = current.json == '' and 0 or tonumber(current.json)
  if not before then return nil, 'increment: the value is not a number' end
  local after = before + operation[4]
  if not (math.abs(after) <= largest) then return nil, 'increment: the sum is beyond 2^53 - 1' end
  local whole = after == math.floor(after)
  local expire = operation[3]
  -- A number that begins anew stays: the expiry that is set is its tombstone's.
  if expire < 0 then expire = current.json == '' and 0 or current.expire end
  return {
    json = whole and string.format('%.0f', after) or number(after),
    version = current.version,
    writer = current.writer,
    received_at = current.received_at,
    expire = expire,
  }
end

-- A deleted version stays known for a while, so that an older write doesn't bring it back.
function apply.delete(current, operation, event)
  local version = operation[4]
  if version then
    if not is_newer(current, version, event) then return current end
    return written_by(event, '', version, operation[3])
  end
  return {
    json = '',
    version = current.version,
    writer = current.writer,
    received_at = current.received_at,
    expire = operation[3],
  }
end

-- The key of a value that isn't any more what the handler has read; of several the first by name.
local function changed_key(prefix, reads)
  local changed
  for _, read in ipairs(reads) do
    local raw = raw_state(prefix .. read[1])
    local is_changed = (raw and redis.sha1hex(raw) or '') ~= read[2]
    if is_changed and not (changed and follows(read[1], changed)) then changed = read[1] end
  end
  return changed
end

-- The key of a value that somebody has the turn of who is about to write it. A newcomer that committed
-- first would make that one run again: so it gets in line, though what it has read is as it was.
local function key_in_turn(claim, reads)
  if not any_turns() then return nil end
  local turn = turn_of(claim.job)
  if turn and turn.state ~= '' then return nil end
  local taken
  for _, read in ipairs(reads) do
    local holder, order = first_of(turn_name(claim.organization, state_turn .. read[1]))
    local is_taken = holder and order == 0 and holder ~= claim.job
    if is_taken and not (taken and follows(read[1], taken)) then taken = read[1] end
  end
  return taken
end

-- All or nothing: nothing is written until the last command has been made out.
local function commit(organization, prefix, operations, event)
  local values, changed, commands, costs = {}, {}, {}, {}
  for _, operation in ipairs(operations) do
    local name = prefix .. operation[2]
    local before = values[name]
    if not before then before, costs[name] = read_state(name) end
    local after, why = apply[operation[1]](before, operation, event)
    if not after then return why end
    values[name] = after
    if after ~= before then changed[name] = after end
  end
  for name, value in pairs(changed) do commands[#commands + 1] = command_for(name, value) end
  for _, command in ipairs(commands) do
    local _, name, raw = unpack(command)
    redis.call(unpack(command))
    hold(organization, 'state', (raw and cost_of_state(name, #raw) or 0) - costs[name])
  end
  return nil
end

local function is_own(claim, raw)
  return raw == 'pending:' .. key.in_mark(claim.job) or raw == 'dead:' .. key.in_mark(claim.job)
end

local function breaker_counts(profile)
  local row, handled, failed = string.match(profile.breaker_rest, '^(%d+):(%d+):(%d+)$')
  return tonumber(row) or 0, tonumber(handled) or 0, tonumber(failed) or 0
end

local function handler_worked(claim)
  local organization = claim.organization
  if troubles[organization] then
    troubles[organization].worked = now_ms()
  else
    end_row(organization, redis.call('HGET', key.organizations, key.trouble .. organization))
  end
  local profile = profile_of(organization)
  if is_tried(claim) then
    close_breaker(organization)
    count('breaker_closed')
  elseif profile.breaker == 'closed' and profile.breaker_rest ~= '' then
    local _, handled, failed = breaker_counts(profile)
    if handled + 1 >= 100 * failed then -- so few among what was handled are forgotten
      close_breaker(organization)
    else
      set_breaker(organization, 'closed', '0:' .. handled + 1 .. ':' .. failed)
    end
  end
end

local function open_breaker(organization, cool_off)
  local due = now_ms() + cool_off
  set_breaker(organization, 'open', number(due))
  redis.call('ZADD', key.breakers, number(due), organization)
  count('breaker_opened')
end

-- An event that a redelivery has revived: who has captured it could open the breaker with it.
local function is_redelivered(claim)
  return claim.event_id ~= '' and redis.call('EXISTS', revivals_name(claim)) == 1
end

local function handler_failed(claim, breaker)
  -- Where it is the one that is tried, another is once its token goes: with a retry at once, or in
  -- order, where it keeps the slot meanwhile, when that is due.
  if not breaker or is_redelivered(claim) then return end
  local most_in_a_row, most_share, sample, cool_off = unpack(breaker)
  local profile = profile_of(claim.organization)
  if is_tried(claim) then return open_breaker(claim.organization, cool_off) end
  if profile.breaker ~= 'closed' then return end
  local row, handled, failed = breaker_counts(profile)
  row, failed = row + 1, failed + 1
  if handled + failed > 2 * sample then -- the older half fades
    handled, failed = math.floor(handled / 2), math.ceil(failed / 2)
  end
  local too_many = most_in_a_row > 0 and row >= most_in_a_row
  local too_large_a_share = most_share > 0 and handled + failed >= sample
    and failed >= most_share * (handled + failed)
  if too_many or too_large_a_share then return open_breaker(claim.organization, cool_off) end
  set_breaker(claim.organization, 'closed', row .. ':' .. handled .. ':' .. failed)
end

local function end_mark(name, raw, retention)
  if retention then
    redis.call('SET', name, raw, 'PX', retention)
  else
    redis.call('SET', name, raw)
  end
  marks_known[name] = raw
end

local settle = {}

function settle.done(claim, details)
  local prefix = key.state .. claim.organization .. ':'
  local name = mark_name(claim.organization, claim.event_id)
  if read_mark(name) ~= 'pending:' .. key.in_mark(claim.job) then return 'again' end
  if #details[2] > 0 then
    local changed = changed_key(prefix, details[2])
    if changed then count('state_conflicts') end
    changed = changed or key_in_turn(claim, details[2])
    if changed then
      with_seldom()
      return ask_for_state(claim, state_turn .. changed)
    end
  end
  local retention = lifetime(details[1])
  if #details[3] > 0 then -- tables for none would cost more than all else here
    local event = { id = claim.event_id, received_at = details[5] or 0 }
    local why = commit(claim.organization, prefix, details[3], event)
    if why then return 'refused:' .. why end
  end
  end_mark(name, done_mark(claim.job, claim.told), retention)
  remove_record(claim.organization, claim.job)
  if details[4] then handler_worked(claim) else give_back_start(claim.organization) end
  remove_job(claim)
  count('handled')
  return 'done'
end

function settle.retry(claim, details)
  -- A score that is none would fail the whole batch where the places are written.
  local due = now_ms() + details[1]
  if not (due <= largest) then error('retry: expected a delay in ms, got ' .. details[1], 0) end
  handler_failed(claim, details[2])
  count_outcome(claim, details[3])
  if details[4] then
    with_seldom()
    note_attempt(claim, details[4])
    note_trouble(claim.organization, details[4][1], details[4][4], details[4][5], due)
  end
  if in_order(claim.organization) then
    keep_slot(claim)
  else
    clear_token(claim)
  end
  write_claim(claim)
  places[claim.job] = number(due)
  -- Whoever sleeps has not heard of it, and might look only after it is due.
  if details[1] < longest_sleep then wake_one() end
  count('retried')
  return 'retried'
end

-- Gone, or a foreign value that is no string: it is empty.
local function payload_of(claim)
  local payload = redis.pcall('GET', key.job .. claim.job)
  return type(payload) == 'string' and payload or ''
end

-- Of a payload that is gone, only the books say when it was received.
local function receipt_of(claim, received_at)
  if received_at > 0 then return number(received_at) end
  return string.match(redis.call('ZSCORE', key.accepted, claim.job) or '0', '^%d+')
end

-- What of ours was harmed doesn't take the place of what an earlier death has kept of it.
local function keeps_payload(claim, reason, record)
  if no_records or not is_harmed(reason) or not is_ours(claim.job) then return false end
  return redis.call('HSTRLEN', record, 'payload') > 0
end

-- What is known of its attempts, with the last one; where its dead letter stands, of those before, too.
local function history_of(claim, told, has_letter)
  local raw = known_in(key.failures, claim.job)
  if raw == '' and has_letter then raw = cmsgpack.pack(history_of_letter(claim.job)) end
  raw = with_redeliveries(claim.job, raw)
  if not told then return raw ~= '' and raw end
  local history = with_attempt(raw, claim.attempts, told)
  history[3] = '' -- the letter says that itself
  return cmsgpack.pack(history)
end

local function write_record(claim, details)
  with_seldom()
  local now = now_ms()
  local record = key.dead_letter .. claim.job
  local before = 0
  if not no_records then
    before = redis.call('EXISTS', record) * cost_of_record(bytes_of_record(record))
  end
  local history = history_of(claim, details[9], before > 0)
  if before > 0 then
    pcall(unlist_letter, claim.organization, claim.job)
    redis.call('HDEL', record, 'by_hand', 'replayed_at', 'held', 'held_at', 'traceback', 'history', 'group')
  end
  if not keeps_payload(claim, details[1], record) then
    redis.call('HSET', record, 'endpoint', details[4], 'type', details[3],
      'received_at', receipt_of(claim, details[5]), 'payload', payload_of(claim))
  end
  redis.call('HSET', record, 'organization', claim.organization, 'event_id', claim.event_id,
    'reason', details[1], 'error', details[2],
    'attempts', claim.attempts, 'claims', claims_of(claim), 'died_at', number(now))
  if (details[8] or '') ~= '' then redis.call('HSET', record, 'traceback', details[8]) end
  if history then redis.call('HSET', record, 'history', history) end
  if redis.call('ZADD', key.dead .. claim.organization, number(now), claim.job) == 1 then
    add(buried, claim.organization, 1)
  end
  if any_turns() and turn_of(claim.job) then
    redis.call('HSET', record, 'order', redis.call('ZSCORE', key.accepted, claim.job) or now)
  end
  hold(claim.organization, 'dead', cost_of_record(bytes_of_record(record)) - before)
  if details[10] then pcall(list_letter, claim.organization, claim.job, details[10]) end
end

-- The mark of its event, or whoever carries that, tells that it came again.
local function note_again(claim, name, mark)
  local kind, named = string.match(mark, '^(%a+):(.*)$')
  local is_done = kind == 'done'
  if kind ~= 'pending' and not (is_done and end_told() ~= '') then return end
  with_seldom()
  local raw, rest = history_in(mark)
  if not is_done then raw = known_in(key.failures, key.from_mark(named)) end
  local more, first = redeliveries_of(claim.job)
  local now = now_ms()
  local what = is_done and done_by(named) == key.in_mark(claim.job) and 'e' or 'c'
  local history = with_one_more(raw, what, now, 1 + more, math.max(0, now - (first or now)), '', '', '')
  if not is_done then return write_history(key.from_mark(named), raw, history) end
  local after = cmsgpack.pack(history)
  hold(claim.organization, 'marks', cost_of_history(after) - cost_of_history(raw))
  marks_known[name] = rest .. '\n' .. after
  redis.call('SET', name, marks_known[name], 'KEEPTTL')
end

local function leave_as_duplicate(claim, has_begun, name, mark)
  note_again(claim, name, mark)
  if not has_begun then give_back_start(claim.organization) end
  remove_record(claim.organization, claim.job)
  remove_job(claim)
  count('duplicate')
  return 'duplicate'
end

function settle.dead(claim, details)
  -- A redelivery has brought it back meanwhile.
  if details[1] == 'payload_lost' and payload_of(claim) ~= '' then return settle.release(claim, {}) end
  local mark, gone
  if claim.event_id == '' then -- an earlier life of the job may have learned it
    decide(claim)
    claim.event_id = redis.call('HGET', key.dead_letter .. claim.job, 'event_id') or ''
  end
  if claim.event_id ~= '' then
    local name = mark_name(claim.organization, claim.event_id)
    local raw = read_mark(name)
    local lost = raw and lost_carrier(raw)
    if raw and not lost and not is_own(claim, raw) then
      return leave_as_duplicate(claim, details[6], name, raw)
    end
    if lost and lost ~= claim.job then gone = lost end
    mark = name
  end
  if details[6] then
    claim.attempts = claim.attempts + 1
  else
    give_back_start(claim.organization)
  end
  write_record(claim, details) -- first: nothing after it can be refused
  local told = details[9]
  if told then note_trouble(claim.organization, told[1], told[4], told[5]) end
  if gone then remove_job(read_claim(gone)) end
  if mark then
    if not read_mark(mark) then hold(claim.organization, 'marks', cost_of_mark(claim.event_id)) end
    end_mark(mark, 'dead:' .. key.in_mark(claim.job))
  end
  handler_failed(claim, details[7])
  remove_job(claim)
  count('dead')
  count('dead:' .. details[1])
  return 'dead'
end

function settle.duplicate(claim, details)
  local name = mark_name(claim.organization, claim.event_id)
  local raw = read_mark(name)
  if not raw or is_own(claim, raw) or string.sub(raw, 1, 5) == 'dead:' or lost_carrier(raw) then
    return 'again'
  end
  return leave_as_duplicate(claim, details[1], name, raw)
end

-- Unlike a duplicate it leaves the record, which may stand under the very same job.
function settle.hold(claim, details)
  local mark = read_mark(mark_name(claim.organization, claim.event_id))
  local record = standing_letter(claim, mark)
  if not record then return 'again' end
  if not details[1] then give_back_start(claim.organization) end
  redis.call('HINCRBY', record, 'held', 1 + redeliveries_of(claim.job))
  redis.call('HSET', record, 'held_at', number(now_ms()))
  remove_job(claim)
  count('held')
  return 'held'
end

local function put_back(claim)
  clear_token(claim)
  write_claim(claim)
  places[claim.job] = tonumber(claim.virtual) > 0 and claim.virtual or '1'
  wake_one()
end

function settle.release(claim, details)
  if not details[1] then give_back_start(claim.organization) end
  uncount(claim)
  put_back(claim)
  count('released')
  return 'released'
end

-- A process that ends, and doesn't know which of its events made it do so.
function settle.abandon(claim)
  put_back(claim)
  count('abandoned')
  return 'abandoned'
end

-- In a rolling deploy old and new workers run side by side, and only some of them know what to do
-- with an event. It costs neither an attempt nor a claim to have asked the wrong one, and in order
-- nobody waits for it. The longer it takes, the less often it is tried.
function settle.wait(claim, details)
  local shortest_wait, longest_wait = 1000, 30000
  local patience, now = details[2], now_ms()
  local first = tonumber(redis.call('HGET', key.unhandled, claim.job)) or now
  local delay = math.min(math.max((now - first) / 2, shortest_wait), longest_wait)
  if patience then
    local left = first + patience - now
    if left <= 0 then return 'overdue' end
    delay = math.min(delay, left)
  end
  redis.call('HSETNX', key.unhandled, claim.job, number(now))
  give_back_start(claim.organization)
  uncount(claim)
  clear_token(claim)
  write_claim(claim)
  places[claim.job] = number(now + math.ceil(delay))
  note_trouble(claim.organization, 'w', '', details[1], now + math.ceil(delay))
  count('waiting')
  return 'waiting'
end

-- The customer's system is busy: nothing of this event's own. So nothing is spent or counted, and it
-- keeps its place ahead of those that came after it, which wait with it. A stock arq worker asks for
-- nobody's hold before it takes a job: from it the event is kept by its place.
function settle.throttle(claim, details)
  -- Nothing is spent, so that nothing else would end a row of holds that last no time.
  local shortest_hold = 1000
  local delay = math.ceil(math.min(math.max(details[1], shortest_hold), longest_hold))
  local due = now_ms() + delay
  redis.call('HINCRBY', key.throttled, claim.job, 1)
  -- When it was asked for comes behind it, since an earlier version shows all that there is.
  hold_back(claim.organization, due, details[2] .. '\n' .. number(now_ms()))
  uncount(claim)
  put_back(claim)
  if details[3] then places[claim.job] = number(due) end
  count('throttled')
  return 'throttled'
end

function settle.remove(claim)
  remove_job(claim)
  return 'removed'
end

-- What is asked of each job that the plain part hasn't seen to.
local function left_over()
  local asked, run, place = {}, 1, 0
  while run <= #ARGV do
    local verb, details, number_of_it = ARGV[run], cmsgpack.unpack(ARGV[run + 1]), tonumber(ARGV[run + 2])
    for i = run + 3, run + 4 * number_of_it, 4 do
      place = place + 1
      if not results[place] then
        asked[#asked + 1] = {
          place = place, verb = verb, details = details, job = ARGV[i], token = ARGV[i + 1],
          bytes = tonumber(ARGV[i + 2]), told = ARGV[i + 3],
        }
      end
    end
    run = run + 3 + 4 * number_of_it
  end
  return asked
end

local function fetch(asked)
  local jobs, marks = {}, {}
  for _, each in ipairs(asked) do jobs[#jobs + 1] = each.job end
  fetch_claims(jobs)
  fetch_records(jobs)
  for _, job in ipairs(jobs) do
    local claim = read_claim(job)
    claims_read[job] = claim
    if claim.event_id ~= '' then
      marks[#marks + 1] = mark_name(claim.organization, claim.event_id)
    end
  end
  fetch_marks(marks)
end

local asked = left_over()
fetch(asked)
for _, each in ipairs(asked) do
  local claim = held_claim(each.job, each.token)
  if claim then
    claim.bytes, claim.told = each.bytes, each.told
    results[each.place] = protected(settle[each.verb], claim, each.details)
  end
  results[each.place] = results[each.place] or 'lost'
end
write_troubles()
return finish(results)
