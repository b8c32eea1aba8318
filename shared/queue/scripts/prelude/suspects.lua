-- Suspects: jobs whose claims keep ending without an outcome, since they may be what ends workers.
--
-- What is known of a suspect beyond its claim stands in a hash of its own, since the scripts of
-- workers of an older version read, and write, a claim as it has always been:
-- "attempts:claims:grouped:waits:blocked:alone", where
--   attempts  are the claim's when this was written. Another number is another life of the job, or
--             an outcome, of which an older script has told nothing here: then only `blocked` holds.
--   claims    are the claim's, too. Another number is a claim by somebody who knows of nothing here.
--   grouped   counts the claims since the last outcome that others ran beside. They are left out of
--             the claim's own `claims`: an older version gives each suspect alone, and buries by
--             that number, so that with them in it, it would bury a poison job's whole group.
--   waits     is how often a worker has given up to wait, for this one's sake, until it holds nothing
--   blocked   is how often its handler has blocked its worker's loop
--   alone     is 1 where the claim that is held, or was the last one, was given alone
-- Few jobs are ever suspects, so a script asks once whether there is any.
local suspects_there
local suspicions_known, suspicions_changed = {}, {}

local function any_suspects()
  if suspects_there == nil then suspects_there = redis.call('EXISTS', key.suspects) == 1 end
  return suspects_there
end

local function fetch_suspicions(jobs)
  if any_suspects() then fetch_fields(key.suspects, suspicions_known, jobs) end
end

local function raw_suspicion(job)
  local raw = suspicions_changed[job]
  if raw ~= nil or not any_suspects() then return raw end
  if suspicions_known[job] == nil then fetch_suspicions({ job }) end
  return suspicions_known[job]
end

-- To be asked for before the claim is changed: it says whether what was written still holds.
local function suspicion_of(claim)
  if claim.suspicion then return claim.suspicion end
  local attempts, claims, grouped, waits, blocked, alone =
    string.match(raw_suspicion(claim.job) or '', '^(%d+):(%d+):(%d+):(%d+):(%d+):([01])$')
  local holds = tonumber(attempts) == claim.attempts
  local is_last = holds and tonumber(claims) == claim.claims
  claim.suspicion = {
    grouped = holds and tonumber(grouped) or 0,
    waits = holds and tonumber(waits) or 0,
    blocked = tonumber(blocked) or 0,
    alone = is_last and alone == '1',
    in_group = is_last and alone == '0' and tonumber(grouped) > 0,
  }
  return claim.suspicion
end

local function write_suspicion(claim)
  local known = suspicion_of(claim)
  local is_any = known.grouped > 0 or known.waits > 0 or known.blocked > 0 or known.alone
  if is_any then
    suspicions_changed[claim.job] = claim.attempts .. ':' .. claim.claims .. ':' .. known.grouped
      .. ':' .. known.waits .. ':' .. known.blocked .. ':' .. (known.alone and '1' or '0')
  elseif suspicions_changed[claim.job] or any_suspects() then
    suspicions_changed[claim.job] = false
  end
end

-- All claims since the last outcome, whoever ran beside.
local function claims_of(claim)
  if claim.claims == 0 or not any_suspects() then return claim.claims end
  return claim.claims + suspicion_of(claim).grouped
end

-- The claim that is held counts as one in which others ran beside the job.
local function count_grouped(claim)
  local known = suspicion_of(claim)
  if known.alone then claim.claims = claim.claims - 1 end
  known.grouped, known.alone = known.grouped + 1, false
  write_suspicion(claim)
end

-- The claim that is held doesn't count: its holder gives it back, or has never heard of it.
local function uncount(claim)
  local known = suspicion_of(claim)
  if known.in_group then
    known.grouped = known.grouped - 1
  else
    claim.claims = math.max(claim.claims - 1, 0)
    known.alone = false -- what was said of the claim before is not known any more
  end
  write_suspicion(claim)
end

-- Claims without an outcome from which on a job may be what ends its workers.
local suspect_from = 2

-- An outcome begins the count anew. Who has blocked its worker's loop stays a suspect all the same.
local function count_outcome(claim, has_blocked)
  local known = suspicion_of(claim)
  claim.attempts = claim.attempts + 1
  claim.claims = has_blocked and suspect_from or 0
  known.grouped, known.waits, known.alone = 0, 0, false
  if has_blocked then known.blocked = known.blocked + 1 end
  write_suspicion(claim)
end

-- The worker that takes no more until it holds nothing, and the suspect that waits for that.
local function duty()
  return string.match(redis.call('GET', key.duty) or '', '^([^\n]*)\n(.*)$')
end
