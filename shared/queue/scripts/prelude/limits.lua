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
