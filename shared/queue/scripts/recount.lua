-- recount: what organizations hold in Redis is counted anew, some keys at a time.
--
-- Arguments: about how many keys to look at, how long a count is good for (ms).
-- Result: 'rests' while the last count is good still, 'goes on', or 'counted' at its end.
-- Transition: none of a job's. What was counted replaces what was said when the count began; what
--   has come and gone since then stays in. So a count needn't be made by one worker, nor at once.
--
-- The hash `recount` says when the last count ended, and holds the one that goes on: how far it is,
-- and by "organization:kind" what was found so far less what was said at its beginning.

local now, good_for = now_ms(), tonumber(ARGV[2])

local function begin()
  local said = redis.call('HGETALL', key.bytes)
  for i = 2, #said, 2 do said[i] = number(-said[i]) end
  call_for_all('HSET', key.recount, said)
  return '0'
end

local function is_good()
  local last = tonumber(redis.call('HGET', key.recount, '*counted')) or 0
  return last <= now and now < last + good_for -- Redis's clock may be set back
end

local found = {}

local function add_found(organization, kind, by)
  if organization then add(found, organization .. ':' .. kind, by) end
end

-- By what the names of a kind begin with: how one of them counts. They hold no value of another
-- type, unless somebody has put it there.
local kinds = {
  [key.job] = function(name, job)
    add_found(organization_of(job), 'waiting', cost_of_payload(length_of('STRLEN', name)))
  end,
  [key.dead_letter] = function(name, job)
    add_found(organization_of(job), 'dead', cost_of_record(bytes_of_record(name)))
  end,
  [key.event] = function(_, rest)
    local organization, event_id = string.match(rest, '^([%w_-]+):(.*)$')
    if organization then add_found(organization, 'marks', cost_of_mark(event_id)) end
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

local function put_right()
  local found_since = redis.call('HGETALL', key.recount)
  for i = 1, #found_since, 2 do
    local organization, kind = string.match(found_since[i], '^(.+):(%a+)$')
    if kind then hold(organization, kind, tonumber(found_since[i + 1])) end
  end
  redis.call('DEL', key.recount)
  redis.call('HSET', key.recount, '*counted', number(now))
end

local cursor = redis.call('HGET', key.recount, '*cursor')
if not cursor then
  if is_good() then return finish('rests') end
  cursor = begin()
end
local after, names = unpack(redis.call('SCAN', cursor, 'COUNT', ARGV[1]))
for _, name in ipairs(names) do look_at(name) end
for name, by in pairs(found) do redis.call('HINCRBY', key.recount, name, by) end
if after == '0' then
  put_right()
  return finish('counted')
end
redis.call('HSET', key.recount, '*cursor', after)
return finish('goes on')
