-- Turns: one at a time for each key of an organization, in order of acceptance.
--
-- A turn is a sorted set of jobs. Whoever has it has the score 0, all others have their order, which
-- is their score among the accepted ones. The holder is the job and not its token, so a crash or a
-- retry loses no turn; what keeps two from committing is still the token alone.
--
-- A job is in one place: one that has its turn, or has been woken to ask for it, is in the queue or
-- parked; one that waits is in the turn and nowhere else.

-- What is known of the jobs that are in turns, MessagePack in a hash. Few jobs are, so a script asks
-- once whether there is any; where there is none, it makes none of the functions for them.
local turns_there
local turns_changed = {}
-- Jobs that begin to wait, or end it, by organization.
local in_turn = {}
local ended_waiting = {} -- ids of events that a newer one has superseded while they waited

local function any_turns()
  if turns_there == nil then
    -- An ingress's rights of an earlier version don't reach to them.
    turns_there = redis.pcall('EXISTS', key.turns) == 1
    if turns_there then with_seldom() end
  end
  return turns_there
end

-- Claimed, and not marked yet: whether an earlier event of the key is among these, nobody knows. Kept
-- only where a worker has a handler with a key. Answers whether it was.
local function decide(claim)
  return redis.pcall('ZREM', key.undecided .. claim.organization, claim.job) == 1
end

-- Its worker has died, or has given it back, before it was known: later ones of its key may go first.
local function leave_undecided(claim)
  if decide(claim) then count('undecided') end
end

-- Seldom: made only where there are turns.

local longest_name = 128 -- bytes: keys come from outside

local function turn_name(organization, text)
  if #text > longest_name then text = redis.sha1hex(text) end
  return key.turn .. organization .. ':' .. text
end

local turns_known = {}

-- Of a job:
--   key, state  the names of its turns, or '': the one that its handler asks for, and that of a value
--               over which it has lost a commit
--   kind        where only the newest of a handler and key is to run: which these are; or ''
--   waits       whether it stands in a turn, and nowhere else
--   since       ms: since when it asks again and again, as an earlier one may ask yet; or 0
--   starts      whether it is to run next, though a newer one of its kind may wait by then
local function turn_of(job)
  local turn = turns_known[job]
  if turn ~= nil or not any_turns() then return turn or nil end
  -- Foreign values are as good as none: they must not end a script that has begun to write.
  local raw = redis.pcall('HGET', key.turns, job)
  local is_read, fields = pcall(cmsgpack.unpack, raw)
  turn = is_read and type(fields) == 'table' and #fields == 6 and {
    key = fields[1], state = fields[2], kind = fields[3],
    waits = fields[4], since = fields[5], starts = fields[6],
  }
  turns_known[job] = turn
  return turn or nil
end

local function no_turn()
  return { key = '', state = '', kind = '', waits = false, since = 0, starts = false }
end

local function write_turn(job, turn)
  turns_there = true
  if turn and turn.key == '' and turn.state == '' then turn = false end
  turns_known[job] = turn
  turns_changed[job] = turn
end

local function write_turns()
  local packed = {}
  for job, turn in pairs(turns_changed) do
    packed[job] = turn and cmsgpack.pack({
      turn.key, turn.state, turn.kind, turn.waits, turn.since, turn.starts,
    })
  end
  pcall(write_fields, key.turns, packed) -- none gets lost by that: `restore` finds who waits
end

-- Whether who waits is where those are woken who do.
local function stands_in_line(job, turn)
  return type(redis.pcall('ZSCORE', turn.state ~= '' and turn.state or turn.key, job)) == 'string'
end

local function is_latest(job, turn)
  return turn.kind ~= '' and redis.pcall('HGET', key.latest, turn.kind) == job
end

local function stop_waiting(job, turn)
  turn.waits = false
  add(in_turn, organization_of(job), -1)
  if is_latest(job, turn) then redis.pcall('HDEL', key.latest, turn.kind) end
  write_turn(job, turn)
end

-- It asks for its turn at its next mark: an earlier one that has come back by then goes first, and
-- pauses, caps, breakers and holds need no rule of their own. At its old virtual time it would go
-- ahead of all other organizations.
local function call_up(job, turn)
  stop_waiting(job, turn)
  -- An older version takes one that waits for one that has lost its place, and gives it one.
  if not place_of(job) then put_back_in_line(read_claim(job)) end
  wake_one()
end

-- The first of a turn, with its order; whoever is in no turn by the books has no business there.
local function first_of(name)
  while true do
    local first = redis.pcall('ZRANGE', name, 0, 0, 'WITHSCORES')
    local job, order = first[1], tonumber(first[2])
    if not job then return nil end
    local turn = turn_of(job)
    if turn and (turn.key == name or turn.state == name) then return job, order, turn end
    redis.call('ZREM', name, job)
  end
end

local function pass_on(name)
  local job, order, turn = first_of(name)
  if job and order > 0 and turn.waits then call_up(job, turn) end
end

local function leave_turn(job, name)
  redis.pcall('ZREM', name, job)
  pass_on(name)
end

-- Nobody has asked for it: a handler that retries much later would hold up all who read the value.
local function give_back_state_turn(job)
  local turn = turn_of(job)
  if not turn or turn.state == '' then return end
  local name = turn.state
  turn.state = ''
  write_turn(job, turn)
  leave_turn(job, name)
end

-- However a job goes, who waits for it must hear of it.
local function leave_turns(job)
  local turn = turn_of(job)
  if not turn then return end
  if turn.waits then stop_waiting(job, turn) end
  write_turn(job, false)
  for _, name in ipairs({ turn.key, turn.state }) do
    if name ~= '' then leave_turn(job, name) end
  end
  redis.pcall('DEL', key.superseded .. job)
end
