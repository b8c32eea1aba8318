-- Removal: a job leaves, with all that is kept of it.

local names_to_delete, leaving, freed_bytes = {}, {}, {}

-- All of it: payload, place, claim, slot, and its part in every count. Whoever holds it has said how
-- long the payload is, for to ask Redis costs more than that.
local function remove_job(claim)
  local job, organization = claim.job, claim.organization
  if claims_changed[job] ~= false then
    local bytes = claim.bytes or length_of('STRLEN', key.job .. job)
    freed_bytes[organization] = (freed_bytes[organization] or 0) + ceil(bytes * 1.3)
      + bytes_of_history(job)
  end
  names_to_delete[#names_to_delete + 1] = key.job .. job
  names_to_delete[#names_to_delete + 1] = key.arq_retry .. job
  places[job] = false
  leaving[organization] = leaving[organization] or {}
  table.insert(leaving[organization], job)
  if any_turns() then leave_turns(job) end
  if claim.event_id == '' then decide(claim) end -- nobody waits for it any more
  clear_token(claim)
  claims_changed[job] = false
  suspicions_changed[job] = nil -- `write_removals` has it go
end

local function write_removals()
  if #names_to_delete == 0 then return end
  redis.call('DEL', unpack(names_to_delete))
  -- Most jobs stand in none of these.
  if redis.call('EXISTS', key.unhandled, key.throttled, key.failures, key.redelivered) > 0 then
    for _, name in ipairs({ key.unhandled, key.throttled, key.failures, key.redelivered }) do
      if redis.call('EXISTS', name) == 1 then
        for _, jobs in pairs(leaving) do call_for_all('HDEL', name, jobs) end
      end
    end
  end
  for organization, jobs in pairs(leaving) do
    local gone = call_for_all('ZREM', key.accepted, jobs)
    add(waiting, organization, -gone)
    hold(organization, 'waiting', -freed_bytes[organization] - gone * cost_of_payload(0))
    if any_suspects() then call_for_all('HDEL', key.suspects, jobs) end
  end
end

-- The job that a mark names as the event's carrier, where somebody has deleted its payload: it
-- carries nothing any more.
local function lost_carrier(mark)
  local job = string.match(mark, '^pending:(.*)$')
  if not job then return nil end
  local is_removed = claims_changed[key.from_mark(job)] == false
  if is_removed or redis.call('EXISTS', key.job .. key.from_mark(job)) == 0 then return key.from_mark(job) end
  return nil
end
