-- recount: what organizations hold in Redis is counted anew, some keys at a time.
--
-- Arguments: about how many keys to look at, how long a count is good for (ms), and how long where
--   somebody has been refused since (ms).
-- Result: 'rests' while the last count is good still, 'goes on', or 'counted' at its end.
-- Transition: none of a job's. What was counted replaces what was said when the count began; what
--   has come and gone since then stays in. So a count needn't be made by one worker, nor at once.
--   What comes between its beginning and the look at it is counted twice; so payloads and letters,
--   which nothing lets expire, are put right only by a first count, and once somebody was refused.
--
-- The hash `recount` says when the last count ended ('*counted') and how often somebody had been
-- refused by its beginning ('*refused'), and holds the one that goes on: how far it is, whether it
-- is of all kinds ('*all'), and by "organization:kind" what was found so far less what was said at
-- its beginning. How far: it notes what was said ('*said'), looks at the keys ('*cursor'), and puts
-- right what is said ('*right'), each some at a time, since organizations may be thousands.

local now, good_for, good_while_refused = now_ms(), tonumber(ARGV[2]), tonumber(ARGV[3])
local refused = redis.call('HGET', key.counters, 'bytes_full') or '0'
local last, refused_before, is_of_all, said_until, cursor, right_until = unpack(redis.call('HMGET',
  key.recount, '*counted', '*refused', '*all', '*said', '*cursor', '*right'))
local was_refused = refused ~= (refused_before or '0')

local function begin()
  is_of_all = (not last or was_refused) and '1' or nil
  redis.call('HSET', key.recount, '*refused', refused)
  if is_of_all then redis.call('HSET', key.recount, '*all', is_of_all) end
  said_until = '0'
end

local function note_said()
  local after, said = unpack(redis.call('HSCAN', key.bytes, said_until, 'COUNT', ARGV[1]))
  for i = 1, #said, 2 do
    local bytes = tonumber(said[i + 1]) or math.huge
    if math.abs(bytes) >= 2 ^ 53 then -- somebody's hand wrote it
      redis.call('HDEL', key.bytes, said[i])
      bytes = 0
    end
    said[i + 1] = number(-bytes)
  end
  call_for_all('HSET', key.recount, said)
  redis.call('HSET', key.recount, '*said', after)
  if after == '0' then
    redis.call('HDEL', key.recount, '*said')
    cursor = '0'
  end
end

local function is_good()
  local at = tonumber(last) or 0
  local good = was_refused and math.min(good_for, good_while_refused) or good_for
  return at <= now and now < at + good -- Redis's clock may be set back
end

local found = {}

local function add_found(organization, kind, by)
  if organization then add(found, organization .. ':' .. kind, by) end
end

-- By what the names of a kind begin with: how one of them counts. They hold no value of another
-- type, unless somebody has put it there.
local kinds = {
  [key.payloads] = function(name)
    local job = string.sub(name, #key.job + 1) -- with the partition's tag, which stands before it
    add_found(organization_of(job), 'waiting', cost_of_payload(length_of('STRLEN', name))
      + bytes_of_history(job))
  end,
  [key.dead_letter] = function(name, job)
    local lists = redis.call('HEXISTS', name, 'group') * cost_of_lists
    add_found(organization_of(job), 'dead', cost_of_record(bytes_of_record(name)) + lists)
  end,
  [key.event] = function(name, rest)
    local organization, event_id = string.match(rest, '^([%w_-]+):(.*)$')
    local history = history_in(redis.call('GET', name) or '')
    add_found(organization, 'marks', cost_of_mark(event_id or '') + cost_of_history(history))
  end,
  [key.state] = function(name, rest)
    add_found(string.match(rest, '^([%w_-]+):'), 'state', cost_of_state(name, length_of('STRLEN', name)))
  end,
}

local function look_at(name)
  for prefix, look in pairs(kinds) do
    if string.sub(name, 1, #prefix) == prefix then
      return protected(look, name, string.sub(name, #prefix + 1))
    end
  end
end

local function look_at_some()
  local after, names = unpack(redis.call('SCAN', cursor, 'COUNT', ARGV[1]))
  for _, name in ipairs(names) do look_at(name) end
  for name, by in pairs(found) do redis.call('HINCRBY', key.recount, name, by) end
  redis.call('HSET', key.recount, '*cursor', after)
  if after == '0' then right_until = '0' end
end

local function put_right()
  local after, fields = unpack(redis.call('HSCAN', key.recount, right_until, 'COUNT', ARGV[1]))
  local done = { '*cursor' }
  for i = 1, #fields, 2 do
    local organization, kind = string.match(fields[i], '^(.+):(%a+)$')
    local may_expire = kind == 'marks' or kind == 'state'
    if kind then done[#done + 1] = fields[i] end
    if kind and (may_expire or is_of_all) then hold(organization, kind, tonumber(fields[i + 1])) end
  end
  call_for_all('HDEL', key.recount, done)
  redis.call('HSET', key.recount, '*right', after)
  if after ~= '0' then return 'goes on' end
  local by_its_beginning = redis.call('HGET', key.recount, '*refused')
  redis.call('DEL', key.recount)
  redis.call('HSET', key.recount, '*counted', number(now), '*refused', by_its_beginning)
  return 'counted'
end

-- The cursor before all else: an earlier version knows no other step, and may have begun anew.
if not (cursor or right_until or said_until) then
  if is_good() then return finish('rests') end
  begin()
end
if not (cursor or right_until) then note_said() end
if cursor then
  right_until = nil
  look_at_some()
end
return finish(right_until and put_right() or 'goes on')
