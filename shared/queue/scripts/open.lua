-- open: a partition expects an organization: what is accepted of it here waits until all of it has come.
--
-- Arguments: organization, the mover's token (hex), the number of the partition from which it comes; and
--   as `halt` says it there: the lowest virtual time, the last ones of its flow and of its retries, and its
--   last order; how often that was too little. Nothing of all that where it has departed.
-- Result: {'open', how far its flow may have come there, and how far its order, before it goes}, of one that
--   has departed {'open', ''}; {'arrived'}, of such a one; or {'way', what is known here of another move}.
-- Transition: none of a job's. Whose order was last there, and whose virtual time, comes before whatever is
--   accepted here: all virtual times rise by as much as keeps what comes first behind what has gone on.

local organization, token, from = ARGV[1], ARGV[2], ARGV[3]
local now = now_ms()
local way = redis.call('HGET', key.moving, organization)
local before, shift = string.match(way or '', '^in:(%d+):(.*)$')
if way and before ~= from then return finish({ 'way', way }) end
-- It was expected before it departed, and is no more: it lives here, whoever has had it come.
if not ARGV[4] and not way then return finish({ 'arrived' }) end
if not ARGV[4] then
  note_told(organization, token, 0)
  return finish({ 'open', '' })
end

-- Where none of it is here yet: it may have gone on there since it was opened for it.
if not shift or redis.call('HEXISTS', key.waiting, organization) == 0 then
  shift = system_time() + 1 - tonumber(ARGV[4])
end
shift = tonumber(shift)
redis.call('HSET', key.moving, organization, 'in:' .. from .. ':' .. number(shift))
note_told(organization, token, 0)
redis.call('HSET', key.organizations, key.pause .. organization, 'it comes from another partition')
redis.call('HDEL', key.moved, organization)

local function raise(field, least)
  local last = tonumber(redis.call('HGET', key.flows, field)) or 0
  least = math.max(last, least)
  redis.call('HSET', key.flows, field, number(least))
  return least
end

-- What is accepted there meanwhile: the mover asks at once whether that is all. Where it is far away, or
-- very much comes in, it is not.
local times = 2 ^ math.min(tonumber(ARGV[8]), 10)
local more_events, more_ms = 100 * times, 50 * times
local flow = tonumber(ARGV[5]) + shift + more_events / profile_of(organization).weight
flow = raise(organization, math.min(flow, last_time))
if ARGV[6] ~= '' then
  raise('retry:' .. organization, math.min(math.max(tonumber(ARGV[6]) + shift, 0), last_time))
end
local order = raise('order:' .. organization, math.max(tonumber(ARGV[7]), now) + more_ms)
return finish({ 'open', number(flow - shift), number(order) })
