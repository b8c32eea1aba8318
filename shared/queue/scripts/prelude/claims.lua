-- Claims: who holds a job, and what is known of its earlier ends.
--
-- A claim is "token:attempts:claims:virtual time:event id". The token is empty when nobody holds
-- the job; `claims` counts the claims since the last outcome; the event id is empty until known.
-- The virtual time stays the text that Redis gave, since it is kept more often than compared.

local claims_known, claims_read, claims_changed = {}, {}, {}

local function fetch_claims(jobs)
  fetch_fields(key.claims, claims_known, jobs)
end

local function raw_claim(job)
  local raw = claims_changed[job]
  if raw == nil then raw = claims_known[job] end
  if raw == nil then raw = redis.call('HGET', key.claims, job) end
  return raw
end

local function read_claim(job)
  local raw = raw_claim(job)
  local token, attempts, claims, virtual, event_id
  if raw then
    token, attempts, claims, virtual, event_id = string.match(raw, '^(%x*):(%d+):(%d+):([^:]*):(.*)$')
  end
  return {
    job = job,
    organization = organization_of(job),
    token = token or '',
    attempts = tonumber(attempts) or 0,
    claims = tonumber(claims) or 0,
    virtual = tonumber(virtual) and virtual or '0',
    event_id = event_id or '',
  }, not raw
end

local function write_claim(claim)
  claims_changed[claim.job] = claim.token .. ':' .. small_number(claim.attempts) .. ':'
    .. small_number(claim.claims) .. ':' .. claim.virtual .. ':' .. claim.event_id
end

-- The one rule: whoever does not hold the job's token changes nothing.
local function held_claim(job, token)
  local claim = claims_changed[job] == nil and claims_read[job] or read_claim(job)
  claims_read[job] = nil -- it may be changed from now on, and nothing come of that
  if token ~= '' and claim.token == token then return claim end
  return nil
end
