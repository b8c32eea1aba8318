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
