-- Records: dead letters, and what they are found by.
--
-- Of an organization's letters those of one cause are a group, and of a partition's those of one reason and
-- type a kind. Each is a sorted set of jobs by when they died, and is counted where all of them are: `dead_groups`
-- of its reason, `dead_kinds`. `dead_labels` tells what the letters of a group have in common, as MessagePack: {when the first
-- one died (ms), reason, type, error, place}. Beyond so many, letters are in one group for each reason,
-- and of one kind for each reason, whose type is '*'.

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
    + length_of('HSTRLEN', record, 'traceback') + length_of('HSTRLEN', record, 'history')
end

local function remove_record(organization, job)
  if no_records then return false end
  local record = key.dead_letter .. job
  with_seldom()
  pcall(unlist_letter, organization, job) -- whatever somebody's hand has left of lists
  local bytes = bytes_of_record(record)
  if redis.call('DEL', record) == 1 then
    redis.call('ZREM', key.dead .. organization, job)
    add(buried, organization, -1)
    hold(organization, 'dead', -cost_of_record(bytes))
    return true
  end
  return false
end

-- Seldom: made only where a dead letter comes or goes.

local most_groups, most_kinds = 200, 500

local function tally_group(organization, group, reason)
  local name = organization .. ':' .. group
  local number_of = redis.call('ZCARD', key.dead_group .. name)
  if number_of > 0 then
    redis.call('ZADD', key.dead_groups .. reason, number_of, name)
  else
    redis.call('ZREM', key.dead_groups .. reason, name)
    redis.call('HDEL', key.dead_labels .. organization, group)
  end
end

local function tally_kind(kind)
  local number_of = redis.call('ZCARD', key.dead_kind .. kind)
  if number_of > 0 then
    redis.call('HSET', key.dead_kinds, kind, number_of)
  else
    redis.call('HDEL', key.dead_kinds, kind)
  end
end

-- The group for letters of such a cause, {its name, error, place}.
local function group_for(organization, cause, died_at, reason, type_of_it)
  local labels, group, error_of_it, place = key.dead_labels .. organization, unpack(cause)
  if redis.call('HEXISTS', labels, group) == 1 then return group end
  if redis.call('HLEN', labels) >= most_groups then
    group, type_of_it, error_of_it, place = 'other-' .. reason, '', '', ''
  end
  -- Of what somebody's hand has harmed, the type stands in some letters only.
  if is_harmed(reason) then type_of_it = '' end
  local label = cmsgpack.pack({ died_at, reason, type_of_it, error_of_it, place })
  redis.call('HSETNX', labels, group, label)
  return group
end

local function kind_for(reason, type_of_it)
  local kind = reason .. ':' .. type_of_it
  local is_new = redis.call('HEXISTS', key.dead_kinds, kind) == 0
  if is_new and redis.call('HLEN', key.dead_kinds) >= most_kinds then return reason .. ':*' end
  return kind
end

-- Where it can be found from now on; what is listed is counted anew, so that no count is ever off for long.
local function list_letter(organization, job, cause)
  local record = key.dead_letter .. job
  local reason, type_of_it, died_at = unpack(redis.call('HMGET', record, 'reason', 'type', 'died_at'))
  if not reason or not died_at then return end
  type_of_it = type_of_it or ''
  local group = group_for(organization, cause, tonumber(died_at), reason, type_of_it)
  local kind = kind_for(reason, type_of_it)
  redis.call('HSET', record, 'group', group)
  redis.call('ZADD', key.dead_group .. organization .. ':' .. group, died_at, job)
  redis.call('ZADD', key.dead_kind .. kind, died_at, job)
  tally_group(organization, group, reason)
  tally_kind(kind)
  hold(organization, 'dead', cost_of_lists)
end

-- As its label says: an earlier version may have given the record another one.
local function reason_of_group(organization, group, otherwise)
  local raw = redis.call('HGET', key.dead_labels .. organization, group)
  local is_read, label = pcall(cmsgpack.unpack, raw)
  local reason = is_read and type(label) == 'table' and label[2]
  return type(reason) == 'string' and reason or otherwise
end

local function unlist_letter(organization, job)
  local record = key.dead_letter .. job
  local group, reason, type_of_it = unpack(redis.call('HMGET', record, 'group', 'reason', 'type'))
  if not group then return end
  hold(organization, 'dead', -cost_of_lists)
  if redis.call('ZREM', key.dead_group .. organization .. ':' .. group, job) == 1 then
    tally_group(organization, group, reason_of_group(organization, group, reason))
  end
  for _, kind in ipairs({ (reason or '') .. ':' .. (type_of_it or ''), (reason or '') .. ':*' }) do
    if redis.call('ZREM', key.dead_kind .. kind, job) == 1 then return tally_kind(kind) end
  end
end
