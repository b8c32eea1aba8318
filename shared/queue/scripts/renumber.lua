-- renumber: virtual times begin anew, long before they would be taken for moments.
--
-- Arguments: a virtual time of the system, and how many jobs and fields of flows there may be at the
--   most from then on, as often as there are such steps: the later, the more. Redis serves nobody
--   meanwhile, and there are years for a moment in which little waits.
-- Result: 'rests' while there is room, 'waits' for a better moment, or 'renumbered'.
-- Transition: none of a job's. All at once, so that scripts of any version find what they know: what
--   lies above the system's time keeps its distance, and what lies below it, and goes first, its order.

local system, most = system_time(), nil
for i = 1, #ARGV, 2 do
  if system >= tonumber(ARGV[i]) then most = tonumber(ARGV[i + 1]) end
end
if not most then return finish('rests') end
if redis.call('ZCARD', key.accepted) + redis.call('HLEN', key.flows) > most then
  return finish('waits')
end

local base = math.ceil(system) - 1 -- below the system's time
local shrunk = 2 ^ -40 -- below 1, and without loss

local function renumbered(virtual)
  return number(virtual > base and virtual - base + 1 or virtual * shrunk)
end

-- What a value of another type under one of these names ends, must have changed nothing yet: first all
-- is read.
local changed_places = {}

local function renumber_places(name)
  local found = redis.call('ZRANGE', name, '-inf', '(' .. key.deferred_from, 'BYSCORE', 'WITHSCORES')
  for i = 1, #found, 2 do
    found[i], found[i + 1] = renumbered(tonumber(found[i + 1])), found[i]
  end
  changed_places[name] = found
end

-- By the books, and by what an earlier version has parked, which noted nobody.
local function renumber_parked()
  local owners = redis.call('SMEMBERS', key.held_back)
  for _, organization in ipairs(redis.call('HKEYS', key.waiting)) do
    owners[#owners + 1] = organization
  end
  for _, organization in ipairs(owners) do renumber_places(key.parked .. organization) end
end

local function renumber_claims()
  local found = redis.call('HGETALL', key.claims)
  for i = 1, #found, 2 do
    local before, virtual, after = string.match(found[i + 1], '^(%x*:%d+:%d+:)([^:]*)(:.*)$')
    virtual = as_virtual_time(virtual)
    if virtual > 0 then claims_changed[found[i]] = before .. renumbered(virtual) .. after end
  end
end

local flows_changed = {}

local function renumber_flows()
  local found = redis.call('HGETALL', key.flows)
  for i = 1, #found, 2 do
    local field, virtual = found[i], as_virtual_time(found[i + 1])
    if string.sub(field, 1, 6) ~= 'order:' then
      flows_changed[field] = virtual > system and renumbered(virtual)
    end
  end
  flows_changed['*'] = renumbered(system)
end

renumber_places(key.queue)
renumber_parked()
renumber_claims()
renumber_flows()
for name, members in pairs(changed_places) do call_for_all('ZADD', name, members) end
write_fields(key.flows, flows_changed)
count('renumbered')
return finish('renumbered')
