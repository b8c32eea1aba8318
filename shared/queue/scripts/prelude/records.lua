-- Records: dead letters.

-- How many come and go, by organization.
local buried = {}

-- Whether a job of ours dies of this since somebody's hand has harmed its payload.
local function is_harmed(reason)
  return reason == 'payload_lost' or reason == 'payload_changed' or reason == 'undecodable'
end

local function is_by_hand(job)
  return redis.call('HEXISTS', key.dead_letter .. job, 'by_hand') == 1
end

-- The dead letter, by its name, that is reason enough to leave the claim's event dead, since its
-- mark tells of it. None where somebody has deleted it, or replays it by hand (whichever job brings
-- the event then, it lives again), or replays another letter that the job itself has left.
local function standing_letter(claim, mark)
  local job = string.match(mark or '', '^dead:(.*)$')
  if not job or is_by_hand(key.from_mark(job)) or is_by_hand(claim.job) then return nil end
  local record = key.dead_letter .. key.from_mark(job)
  local reason = redis.call('HGET', record, 'reason')
  -- What the redelivery brings may be the only good bytes that there are.
  if not reason or is_harmed(reason) then return nil end
  return record
end

-- Most jobs have no record; asked once for a batch, it needn't be asked for each.
local no_records = false

local function fetch_records(jobs)
  local names = {}
  for i, job in ipairs(jobs) do names[i] = key.dead_letter .. job end
  no_records = #names > 0 and redis.call('EXISTS', unpack(names)) == 0
end

-- What changes in it later is small, so that it goes as what it came as.
local function bytes_of_record(record)
  return length_of('HSTRLEN', record, 'payload') + length_of('HSTRLEN', record, 'error')
    + length_of('HSTRLEN', record, 'traceback')
end

local function remove_record(organization, job)
  if no_records then return false end
  local record = key.dead_letter .. job
  local bytes = bytes_of_record(record)
  if redis.call('DEL', record) == 1 then
    redis.call('ZREM', key.dead .. organization, job)
    add(buried, organization, -1)
    hold(organization, 'dead', -cost_of_record(bytes))
    return true
  end
  return false
end
