-- What an organization's keys take in Redis, as its budget counts them.

-- What an organization's keys take in Redis, in bytes by "organization:kind", as its budget counts
-- them. The kinds:
--   waiting  payloads of accepted events, where jobs come and go; and what their attempts came to
--   dead     dead letters, where records do
--   marks    of events. Counted where one is made; Redis doesn't say when one expires.
--   state    what handlers have written; the same holds for what expires
-- `recount` puts right what time, or somebody's hand, has made untrue.
local held = { waiting = {}, dead = {}, marks = {}, state = {} }

-- By measurement: what a text takes grows by steps, and each key or place of it costs something, too.
local ceil = math.ceil

local function cost(bytes, places_of_it)
  return ceil(bytes * 1.3) + 200 * places_of_it
end

local function cost_of_payload(bytes) return cost(bytes, 2) end -- its key; queue and lists of jobs

-- A job's history in the hash `failures`, or its field of `redelivered`, which is of digits and colons; by
-- its first byte not the history of an older version, which counts none.
local function cost_of_history(raw)
  if raw and string.byte(raw) == 0x93 then return cost(#raw, 0) + 100 end
  return raw and string.find(raw, '^%d') and 200 or 0
end

local function cost_of_record(bytes) return cost(bytes, 5) end -- a dozen fields; its mark is apart

local cost_of_lists = 400 -- what a dead letter is found by: two places

local function cost_of_mark(event_id) return cost(#event_id, 1) end

local function cost_of_state(name, bytes) return cost(#name + bytes, 1) end

-- When an organization last held nearly as much as it may (ms): by a name that is kept and forgotten as
-- its order is, also by earlier versions.
local function nearly_full(organization) return 'order:full:' .. organization end

local function hold(organization, kind, by)
  local tally = held[kind]
  tally[organization] = (tally[organization] or 0) + by
end

-- Unlike a tally it may fall below nothing, while a recount has yet to add what was never counted.
-- Who only adds has no right to remove a field.
local function write_held()
  for kind, tally in pairs(held) do
    for organization, by in pairs(tally) do
      local field = organization .. ':' .. kind
      local sum = by ~= 0 and redis.pcall('HINCRBY', key.bytes, field, by)
      if sum == 0 and by < 0 then redis.call('HDEL', key.bytes, field) end
    end
  end
end
