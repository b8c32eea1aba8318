-- Rates: how often an organization's handlers may start, over all workers together.
--
-- A claim takes a start, and whoever leaves before a handler has begun gives it back. The hash has, by
-- organization, what the endpoints file says, "ms between two starts:credit (ms)"; by
-- "next:{organization}" from when on (ms) the next start is due; and by "ramp:{organization}" a slow
-- beginning after its events have waited, "since (ms):starts a second:1 where these double each
-- second". What is due and not taken counts for no longer than the credit, so that it isn't hoarded.

-- Few organizations have one, so a script asks once whether any has; where none has, it makes none of
-- the functions for them.
local rates_there
local rates_changed = {}

local function any_rates()
  if rates_there == nil then
    rates_there = redis.call('EXISTS', key.rates) == 1
    if rates_there then with_seldom() end
  end
  return rates_there
end

-- Seldom: made only where there are rates.

local rates = {}
local next_field = 'next:'
local ramp_field = 'ramp:'

-- Who asks again late, since idle workers' sleep is as long as Redis makes it, must not lose by it.
local least_credit = 100 -- ms

local first_starts, fastest = 10, 10000 -- starts a second: of a slow beginning, and at its end

local function ramp_of(raw)
  local since, starts, doubles = string.match(raw or '', '^(%d+):([^:]+):([01])$')
  since, starts = tonumber(since), tonumber(starts)
  if not since or not starts or starts <= 0 then return nil end
  -- After a fail-over, the clock of another Redis may be hours behind: it would last for so long.
  local seconds = math.floor(math.abs(now_ms() - since) / 1000)
  if doubles == '0' then return { interval = 1000 / starts, credit = least_credit } end
  if starts * 2 ^ seconds >= fastest then return nil end
  local interval = 1000 / (starts * 2 ^ seconds)
  -- What stands there already may begin at once, up to the first second's.
  return { interval = interval, credit = seconds == 0 and 1000 - interval or least_credit }
end

-- How fast, and since when; nil where there is no limit.
local function rate_of(organization)
  if not any_rates() then return nil end
  if rates[organization] ~= nil then return rates[organization] or nil end
  local said, next_at, ramp = unpack(redis.call('HMGET', key.rates, organization,
    next_field .. organization, ramp_field .. organization))
  local interval, credit = string.match(said or '', '^([^:]+):([^:]+)$')
  interval, credit = tonumber(interval), tonumber(credit)
  local rate = interval and credit and { interval = interval, credit = credit }
  local slow = ramp_of(ramp)
  if slow and (not rate or slow.interval > rate.interval) then rate = slow end
  if ramp and not slow then
    rates_changed[ramp_field .. organization] = false
    if not said then rates_changed[next_field .. organization] = false end
  end
  if rate then
    rate.next_at, rate.is_ramp, rate.is_said = tonumber(next_at) or 0, ramp and true, said and true
  end
  rates[organization] = rate or false
  return rate
end

-- From when on a start is due. After a fail-over, the clock of another Redis may be hours behind.
local function due_from(rate)
  local now = now_ms()
  return math.max(math.min(rate.next_at, now + rate.interval), now - rate.credit)
end

local function starts_due(organization)
  local rate = rate_of(organization)
  if not rate then return math.huge end
  return math.max(0, math.floor((now_ms() - due_from(rate)) / rate.interval) + 1)
end

local function take_start(organization)
  local rate = rate_of(organization)
  if not rate then return end
  rate.next_at = due_from(rate) + rate.interval
  rates_changed[next_field .. organization] = number(rate.next_at)
end

local function return_start(organization)
  local rate = rate_of(organization)
  if not rate then return end
  rate.next_at = rate.next_at - rate.interval
  rates_changed[next_field .. organization] = number(rate.next_at)
end

-- A claim looks again when so many more starts are due.
local function look_when_due(organization, after)
  local rate = rate_of(organization)
  local at = math.ceil(due_from(rate) + after * rate.interval)
  redis.call('ZADD', key.due, math.max(at, now_ms() + 1), key.rate .. organization)
end

-- Thousands of events that have waited would run at once, against a system that has only come back.
-- Answers whether any have.
local function begin_slowly(organization, starts, doubles)
  if redis.call('EXISTS', key.parked .. organization) == 0 then return false end
  local rate = rate_of(organization)
  -- What an earlier beginning has used says nothing of this one.
  if rate and not rate.is_said then redis.call('HDEL', key.rates, next_field .. organization) end
  rates_changed[ramp_field .. organization] = nil -- that one's end is not this one's
  rates_there, rates[organization] = true, nil
  redis.call('HSET', key.rates, ramp_field .. organization,
    number(now_ms()) .. ':' .. (starts or first_starts) .. ':' .. (doubles or '1'))
  return true
end

local function end_ramp(organization)
  local rate = rate_of(organization)
  if not rate or not rate.is_ramp then return end
  redis.call('HDEL', key.rates, ramp_field .. organization)
  if not rate.is_said then
    redis.call('HDEL', key.rates, next_field .. organization) -- all else may be written already
    rates_changed[next_field .. organization] = nil
  end
  rates[organization] = nil
end
