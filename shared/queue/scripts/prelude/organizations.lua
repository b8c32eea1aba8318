-- Organizations: who must wait, how many of whose jobs may run, and who is parked until they may.

-- What the endpoints file and the operators say of an organization, and what its handlers' ends
-- say. Its field in the hash is "cap:weight"; an empty cap is the default one.
-- "pause:{organization}" is there while it is paused, "breaker:{organization}" after failures:
--   closed:consecutive failures:handled:failed   events go on, and are counted
--   open:until (ms)                              events wait
--   trying:job                                   one event is let through; no job: the next one
-- "hold:{organization}" is there while its handlers have asked to be left alone: "until (ms):why", and
-- where one of them has asked, rather than a mover, a line break and when (ms).
-- "trouble:{organization}" is there once its handlers have failed, or asked for another attempt. It is for
-- whoever looks at it, and nothing is decided by it:
--   worked:since:last:next:latest:number:kind:handler, a line break, and the beginning of the error
--   worked is when one has worked since (ms), or 0; since and last are when the first and the last attempt
--   failed, next and latest when the first and the last of these events are due again, 0 where none is; and
--   number is how many failed. Whatever comes a quarter of an hour behind all that is another trouble.
local profiles = {}

local longest_hold = 3600000

-- None that is over, though no claim has taken it away, nor one that lasts longer than any may: after
-- a fail-over, the clock of another Redis may be hours behind.
local function end_of_hold(raw)
  local until_when, now = tonumber(string.match(raw, '^%d+')), now_ms()
  if until_when and until_when > now and until_when <= now + longest_hold then return until_when end
  return nil
end

local function fetch_profiles(names)
  local fields = {}
  for _, organization in ipairs(names) do
    fields[#fields + 1] = organization
    fields[#fields + 1] = key.pause .. organization
    fields[#fields + 1] = key.breaker .. organization
    fields[#fields + 1] = key.hold .. organization
  end
  local found = redis.call('HMGET', key.organizations, unpack(fields))
  for i, organization in ipairs(names) do
    local raw, pause, breaker, held_until = unpack(found, 4 * i - 3, 4 * i)
    local cap, weight = string.match(raw or '', '^(%d*):([%d.]+)$')
    local state, rest = string.match(breaker or '', '^(%a+):(.*)$')
    profiles[organization] = {
      cap = tonumber(cap),
      weight = tonumber(weight) or 1,
      paused = pause and true or false,
      held_until = held_until and end_of_hold(held_until),
      breaker = state or 'closed',
      breaker_rest = rest or '',
    }
  end
end

local function profile_of(organization)
  if not profiles[organization] then fetch_profiles({ organization }) end
  return profiles[organization]
end

-- Whoever may have parked jobs that could run now.
local freed = {}

local function set_breaker(organization, state, rest)
  local profile = profile_of(organization)
  profile.breaker, profile.breaker_rest = state, rest
  redis.call('HSET', key.organizations, key.breaker .. organization, state .. ':' .. rest)
end

local function close_breaker(organization)
  local profile = profile_of(organization)
  local was_closed = profile.breaker == 'closed' -- and only forgets its failures: nobody waited for it
  profile.breaker, profile.breaker_rest = 'closed', ''
  redis.call('ZREM', key.breakers, organization)
  if not was_closed then
    with_seldom()
    begin_slowly(organization)
  end
  freed[organization] = true
  return redis.call('HDEL', key.organizations, key.breaker .. organization)
end

-- Of several holds the longest wins: each handler knows only what it was told itself.
local function hold_back(organization, until_when, why)
  local profile = profile_of(organization)
  if profile.held_until and profile.held_until >= until_when then return end
  redis.call('ZADD', key.due, number(until_when), key.hold .. organization) -- first: what ends it
  redis.call('HSET', key.organizations, key.hold .. organization, number(until_when) .. ':' .. why)
  profile.held_until = until_when
end

local function lift_hold(organization)
  profile_of(organization).held_until = nil
  redis.call('ZREM', key.due, key.hold .. organization)
  freed[organization] = true
  local is_there = redis.call('HDEL', key.organizations, key.hold .. organization)
  if is_there == 1 then
    with_seldom()
    begin_slowly(organization)
  end
  return is_there
end

local apart = 15 * 60000 -- ms between one trouble and the next

local troubles = {} -- that this script has changed

local function trouble_of(organization)
  if troubles[organization] then return troubles[organization] end
  local raw = redis.call('HGET', key.organizations, key.trouble .. organization)
  local since, last, next_due, latest, number_of =
    string.match(raw or '', '^%d+:(%d+):(%d+):(%d+):(%d+):(%d+):')
  local trouble = { since = now_ms(), next_due = 0, latest = 0, number_of = 0 }
  if since and now_ms() <= math.max(tonumber(last), tonumber(latest)) + apart then
    trouble.since, trouble.next_due = tonumber(since), tonumber(next_due)
    trouble.latest, trouble.number_of = tonumber(latest), tonumber(number_of)
  end
  troubles[organization] = trouble
  return trouble
end

--   due  when the event comes back (ms), or nil
local function note_trouble(organization, kind, handler, said, due)
  local trouble, now = trouble_of(organization), now_ms()
  trouble.worked, trouble.number_of = 0, trouble.number_of + 1
  trouble.kind, trouble.handler, trouble.said = kind, handler, said
  if not due then return end
  if trouble.next_due <= now or due < trouble.next_due then trouble.next_due = due end
  trouble.latest = math.max(trouble.latest, due)
end

-- What came of a batch at once: most of its events are of few organizations.
local function write_troubles()
  for organization, trouble in pairs(troubles) do
    local numbers = string.format('%d:%d:%d:%d:%d:%d:', trouble.worked, trouble.since, now_ms(),
      trouble.next_due, trouble.latest, trouble.number_of)
    redis.call('HSET', key.organizations, key.trouble .. organization, numbers .. trouble.kind .. ':'
      .. string.gsub(trouble.handler or '', ':', '.') .. '\n' .. string.sub(trouble.said or '', 1, 160))
  end
end

-- Only the first one that works again is of interest.
local function end_row(organization, trouble)
  if trouble and string.sub(trouble, 1, 2) == '0:' then
    redis.call('HSET', key.organizations, key.trouble .. organization,
      number(now_ms()) .. string.sub(trouble, 2))
  end
end

-- An organization's events wait while it is paused or held, and while its breaker is open or watches
-- the one event that it has let through.
local function must_wait(organization)
  local profile = profile_of(organization)
  return profile.paused or profile.held_until or profile.breaker == 'open'
    or profile.breaker == 'trying' and profile.breaker_rest ~= ''
end

local function is_tried(claim)
  local profile = profile_of(claim.organization)
  return profile.breaker == 'trying' and profile.breaker_rest == claim.job
end

-- The event that was let through has ended without saying anything about the organization.
local function let_another_try(claim)
  if is_tried(claim) then set_breaker(claim.organization, 'trying', '') end
end

-- Without a cap of its own, an organization may hold four of five slots of all live workers: the
-- rest stays for the others while its handlers hang.
local default_cap

local function cap_of(organization)
  local own = profile_of(organization).cap
  if own then return own end
  if not default_cap then
    local all = tonumber(redis.call('GET', key.slots)) or 0
    default_cap = all > 0 and math.max(1, math.floor(all * 0.8)) or math.huge
  end
  return default_cap
end

-- One at a time means in order of acceptance. Only a cap that somebody has set says so: a default
-- one is 1 where there are few slots, and then nobody waits for another's retry.
local function in_order(organization)
  return profile_of(organization).cap == 1
end

-- A handler that has not begun needs no start.
local function give_back_start(organization)
  if any_rates() then return_start(organization) end
end

local function running_of(organization)
  return tonumber(redis.call('HGET', key.running, organization)) or 0
end

local longest_sleep = 1000 -- ms: as worker/engine/claims.py has it

local function wake_one()
  if redis.call('LLEN', key.wake) == 0 then redis.call('LPUSH', key.wake, '1') end
end

-- Up to its free slots, and to the starts that are due, an organization's parked jobs go back in
-- line, at their old places.
local function unpark(organization)
  local parked = key.parked .. organization
  local has_rates = any_rates()
  if redis.call('EXISTS', parked) == 0 then
    if has_rates then end_ramp(organization) end
    return
  end
  if must_wait(organization) then return end
  local most = profile_of(organization).breaker == 'trying' and 1 or 256
  local slots_free = math.min(cap_of(organization) - running_of(organization), most)
  local starts = has_rates and starts_due(organization) or math.huge
  local free = math.min(slots_free, starts)
  local popped = free > 0 and redis.call('ZPOPMIN', parked, free) or {}
  if has_rates and redis.call('EXISTS', parked) == 0 then
    end_ramp(organization)
  elseif starts <= slots_free then
    look_when_due(organization, starts)
  end
  if #popped == 0 then return end
  for i = 1, #popped, 2 do popped[i], popped[i + 1] = popped[i + 1], popped[i] end
  call_for_all('ZADD', key.queue, popped)
  wake_one()
end

-- Few organizations have parked jobs: asked for all at once, most scripts ask no further.
local function unpark_freed()
  local names = {}
  for organization in pairs(freed) do names[#names + 1] = key.parked .. organization end
  if #names == 0 then return end
  if #names <= most_arguments and redis.call('EXISTS', unpack(names)) == 0 then return end
  for organization in pairs(freed) do unpark(organization) end
end
