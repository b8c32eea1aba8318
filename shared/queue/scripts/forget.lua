-- forget: flows of organizations that have nothing, and that say nothing any more, go, some at a time.
--
-- Arguments: cursor ('0' at the beginning), about how many fields to look at, for how long (ms) the
--   order of acceptance of an organization that has nothing is kept: clocks of ingresses may differ by
--   as much.
-- Result: the next cursor ('0' at the end).
-- Transition: none of a job's. A virtual time that isn't above the system's says what none says, for
--   the system's only rises. The order has nobody to stand behind, and the next one is above it, since
--   the clock is.

local order_field = 'order:'
local cursor, found = unpack(redis.call('HSCAN', key.flows, ARGV[1], 'COUNT', ARGV[2]))
local system, long_past = system_time(), now_ms() - tonumber(ARGV[3])

local function says_nothing(field, value)
  if field == '*' then return false end
  if string.sub(field, 1, #order_field) == order_field then
    return (tonumber(value) or 0) < long_past
  end
  return as_virtual_time(value) <= system
end

local fields, owners, gone = {}, {}, {}
for i = 1, #found, 2 do
  if says_nothing(found[i], found[i + 1]) then
    fields[#fields + 1] = found[i]
    owners[#owners + 1] = string.match(found[i], '[^:]*$')
  end
end
for first = 1, #fields, most_arguments do
  local last = math.min(first + most_arguments - 1, #fields)
  for i, waiting in ipairs(redis.call('HMGET', key.waiting, unpack(owners, first, last))) do
    if not waiting then gone[#gone + 1] = fields[first + i - 1] end
  end
end
call_for_all('HDEL', key.flows, gone)
return finish(cursor)
