-- Asking for turns: who goes on, who gets in line, and who ends since a newer one is there.

-- Seldom: made only where somebody asks.

-- Accepted by nobody, it is the last one. 0 is for who has the turn.
local function order_of(job)
  local order = redis.call('ZSCORE', key.accepted, job) or number(now_ms())
  return tonumber(order) >= 1 and order or '1'
end

-- Whether somebody has the turn, or comes first.
local function is_taken(name, job, order)
  local first, its_order = first_of(name)
  return first and first ~= job and its_order < tonumber(order)
end

-- In one step with what asked for it: were it a second one, whoever passes the turn on in between
-- would find nobody to wake. It costs neither an attempt nor a slot, nor the turn of its key.
local function let_go(claim, turn)
  uncount(claim)
  clear_token(claim)
  write_turn(claim.job, turn)
  write_claim(claim)
end

-- Who waits for a key's turn gives back that of a value: whoever has the key's may need it.
local function wait_in(name, claim, turn, order)
  redis.call('ZADD', name, order, claim.job)
  turn.waits, turn.since = true, 0
  if name == turn.state then
    turn.state = '' -- or it would be given back with the token
    let_go(claim, turn)
    turn.state = name
    write_turn(claim.job, turn)
  else
    let_go(claim, turn)
    if turn.kind ~= '' then redis.pcall('HSET', key.latest, turn.kind, claim.job) end
  end
  places[claim.job] = false
  add(in_turn, claim.organization, 1)
  count('in_line')
  return 'in_line'
end

local function come_back(claim, turn, after)
  let_go(claim, turn)
  places[claim.job] = number(now_ms() + after)
  -- Whoever sleeps has not heard of it, and might look only after it is due.
  if after < longest_sleep then wake_one() end
  return 'later'
end

-- Another round starts the handler without a claim; where starts are counted, it takes one.
local function run_again(claim, turn)
  if not any_rates() or not rate_of(claim.organization) then return 'conflict' end
  let_go(claim, turn)
  places[claim.job] = number(retry_time(claim.organization))
  wake_one()
  return 'later'
end

-- A value that an event has read has changed, or is about to: it gets in line for it. One turn of a
-- value at a time, so that nobody waits while somebody waits for him.
local function ask_for_state(claim, text)
  local job, name = claim.job, turn_name(claim.organization, text)
  local turn = turn_of(job)
  if turn and turn.state == name then return run_again(claim, turn) end -- somebody wrote unread
  give_back_state_turn(job)
  turn = turn_of(job) or no_turn()
  turn.state = name
  local order = order_of(job)
  write_turn(job, turn)
  if is_taken(name, job, order) then return wait_in(name, claim, turn, order) end
  redis.call('ZADD', name, 0, job)
  return run_again(claim, turn)
end

local most_named = 100 -- superseded events that a later one is told of

-- The ids of the events that it stands for.
local function superseded_by(job)
  return redis.pcall('LRANGE', key.superseded .. job, 0, -1)
end

-- The event is done, since a newer one of its kind stands for it.
local function supersede(job, newer, retention)
  local claim = read_claim(job)
  local mark = mark_name(claim.organization, claim.event_id)
  -- Somebody's hand may have deleted it: then another job may carry the event by now.
  if read_mark(mark) == 'pending:' .. key.in_mark(job) then
    marks_taken[mark], marks_known[mark] = nil, nil
    redis.call('SET', mark, done_mark(job, a_newer_one_stands), 'PX', retention)
  end
  local ids = superseded_by(job)
  ids[#ids + 1] = claim.event_id
  redis.pcall('RPUSH', key.superseded .. newer, unpack(ids))
  redis.pcall('LTRIM', key.superseded .. newer, -most_named, -1)
  remove_record(claim.organization, job)
  remove_job(claim)
  count('superseded')
end

-- Whether a newer one of its kind makes the asking one needless. One that waits and is next then is
-- sure to run: where newer ones come faster than one is started, none ever would.
local function is_superseded(claim, turn, order, retention)
  local job, name = claim.job, turn.key
  local first, first_order, first_turn = first_of(name)
  local newer = redis.pcall('HGET', key.latest, turn.kind)
  local newers_turn = type(newer) == 'string' and newer ~= job and turn_of(newer)
  if newers_turn and newers_turn.waits and tonumber(order_of(newer)) > tonumber(order) then
    local next_one = redis.pcall('ZRANGE', name, 0, 1)
    local is_next = not first or first == job and next_one[2] == newer or first == newer
    supersede(job, newer, retention)
    if is_next then
      redis.pcall('ZADD', name, 0, newer)
      if newers_turn.waits then call_up(newer, newers_turn) end
      newers_turn.starts = true
      write_turn(newer, newers_turn)
    end
    return true
  end
  local has_turn = first and first ~= job and first_order == 0 and first_turn.kind == turn.kind
  if has_turn and tonumber(order_of(first)) > tonumber(order) then
    supersede(job, first, retention)
    return true
  end
  -- An older one that waits ends here, whatever becomes of this one.
  if newers_turn and newers_turn.waits then
    ended_waiting[#ended_waiting + 1] = read_claim(newer).event_id
    supersede(newer, job, retention)
  end
  return false
end

local longest_doubt = 1000 -- ms in which a worker says what it has claimed, or is given up
local look_again = 20 -- ms

-- Asking alone would let events overtake an earlier one of their key, since several workers claim
-- and decode at once.
local function may_be_overtaking(claim, turn, order, now)
  local undecided = key.undecided .. claim.organization
  local earliest = redis.pcall('ZRANGE', undecided, 0, 0, 'WITHSCORES')
  if not earliest[1] or tonumber(earliest[2]) >= tonumber(order) then return false end
  if turn.since == 0 or turn.since > now then turn.since = now end
  if now - turn.since < longest_doubt then return true end
  count('overtaken', redis.call('ZREMRANGEBYSCORE', undecided, '-inf', '(' .. order))
  return false
end

-- In front of a key: whatever one is made of, its turn is never that of a value.
local key_turn = 'key:'

-- Asks for the turn of the handler's key, and for that of a value for which it was woken. Answers nil
-- where it may go on.
--   asked  {text of the key, handler where only its newest runs or '', ms to gather these in}; or nil
local function ask(claim, asked, now, retention)
  local job, organization = claim.job, claim.organization
  local turn = turn_of(job) or no_turn()
  local name = asked and turn_name(organization, key_turn .. asked.text) or ''
  if turn.waits then stop_waiting(job, turn) end -- somebody's hand has brought it back
  if turn.key ~= name then -- a deploy has another key, or none
    local before = turn.key
    turn.key, turn.since, turn.starts = name, 0, false
    write_turn(job, turn)
    if before ~= '' then leave_turn(job, before) end
    if name == '' then redis.pcall('DEL', key.superseded .. job) end -- it is told of none without
  end
  local order = (asked or turn.state ~= '') and order_of(job)
  if asked then
    turn.kind = asked.handler ~= '' and name .. '\n' .. asked.handler or ''
    if turn.starts then
      turn.starts = false
    -- Who asks for a value's turn has run: under a stream of newer ones none might ever commit.
    elseif turn.kind ~= '' and turn.state == ''
      and is_superseded(claim, turn, order, retention) then
      return 'superseded'
    end
    if is_taken(name, job, order) then return wait_in(name, claim, turn, order) end
    if redis.call('ZSCORE', name, job) ~= '0' then
      if may_be_overtaking(claim, turn, order, now) then
        redis.call('ZADD', name, order, job)
        return come_back(claim, turn, look_again)
      end
      redis.call('ZADD', name, 0, job)
      turn.since = 0
      if asked.quiet > 0 then return come_back(claim, turn, asked.quiet) end
    end
  end
  if turn.state ~= '' then
    if is_taken(turn.state, job, order) then return wait_in(turn.state, claim, turn, order) end
    redis.call('ZADD', turn.state, 0, job)
  end
  write_turn(job, turn)
  return nil
end
