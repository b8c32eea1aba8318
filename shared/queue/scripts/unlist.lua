-- unlist: what the endpoints file said of organizations that have left it goes, where they have nothing.
--
-- Arguments: what stands for the organizations of the file, as live workers say it of themselves; then
--   some that aren't in it.
-- Result: how many are gone. None where any live worker's file has others, or it doesn't say: what the
--   scripts know of them is published only where it is news, and a cap of 1 is the order.
-- Transition: none of a job's. Whoever waits, runs, is dead, paused or held, or whose breaker isn't
--   closed, keeps all; and so does, for as long, whose rate has not forgotten its last start.

local says = string.format('"organizations":"%s"', ARGV[1])

local function all_agree()
  local workers = redis.call('HVALS', key.workers)
  for _, worker in ipairs(workers) do
    if not string.find(worker, says, 1, true) then return false end
  end
  return #workers > 0 -- or not even the asking one says so
end

local function may_start_at_once(organization)
  local said, next_at = unpack(redis.call('HMGET', key.rates, organization, 'next:' .. organization))
  local credit = tonumber(string.match(said or '', '^[^:]+:([^:]+)$')) or 0
  return (tonumber(next_at) or 0) <= now_ms() - credit
end

local function has_nothing(organization)
  if redis.call('HEXISTS', key.waiting, organization) == 1
    or redis.call('HEXISTS', key.running, organization) == 1
    or redis.call('HEXISTS', key.buried, organization) == 1 then
    return false
  end
  local pause, hold, breaker = unpack(redis.call('HMGET', key.organizations,
    key.pause .. organization, key.hold .. organization, key.breaker .. organization))
  local is_closed = not breaker or string.sub(breaker, 1, 7) == 'closed:'
  return not pause and not hold and is_closed and may_start_at_once(organization)
end

local gone = 0
if not all_agree() then return finish(gone) end
for i = 2, #ARGV do
  local organization = ARGV[i]
  if has_nothing(organization) then
    redis.call('HDEL', key.organizations, organization, key.breaker .. organization,
      key.trouble .. organization)
    redis.call('HDEL', key.rates, organization, 'next:' .. organization, 'ramp:' .. organization)
    gone = gone + 1
  end
end
return finish(gone)
