-- Slots: one is taken while a token is set, and freed exactly when it is cleared.

local slots = {}

local function clear_token(claim)
  if claim.token == '' then return end
  claim.token = ''
  add(slots, claim.organization, -1)
  freed[claim.organization] = true
  let_another_try(claim)
  if any_turns() then give_back_state_turn(claim.job) end
  if claim.event_id == '' then leave_undecided(claim) end
end

-- In order, who retries keeps the organization's only slot until it is due. The slot is the
-- token's; this one nobody holds, and it is longer than those that somebody does.
local function keep_slot(claim)
  if any_turns() then give_back_state_turn(claim.job) end
  if claim.event_id == '' then leave_undecided(claim) end
  claim.token = redis.sha1hex(claim.token)
end

local function keeps_slot(claim)
  return #claim.token == 40
end

local function set_token(claim, token)
  if claim.token == '' then add(slots, claim.organization, 1) end
  claim.token = token
end
