-- settle, of events that are done and have neither read nor written a value, as most are.
--
-- What isn't as plain is left to the rest of the script, as if it had come in a second call: whatever is
-- in a turn, has a rate, a past to tell or a dead letter, and whose organization has a breaker that counts.

local results = {}

-- Whether all of a run are done, and its details.
local function is_plainly_done(verb, packed)
  local details = verb == 'done' and cmsgpack.unpack(packed)
  if not details then return false end
  local retention = details[1]
  return #details[2] == 0 and #details[3] == 0 and details[4] and type(retention) == 'number'
    and retention % 1 == 0 and retention >= 1 and retention < 2 ^ 53, details
end

-- Whether any may be in a turn, has a rate, or a dead letter. Mostly none of their organizations has one.
local function are_special(asked, jobs)
  local names, known = { key.turns, key.rates, unpack(asked.seldom) }, {}
  for _, job in ipairs(jobs) do
    local organization = organization_of(job)
    if not known[organization] then
      known[organization] = true
      names[#names + 1] = key.dead .. organization
    end
  end
  asked.has_seldom = redis.call('EXISTS', unpack(names)) > 0
  if not asked.has_seldom then return false end
  names = { key.turns, key.rates }
  for i, job in ipairs(jobs) do names[i + 2] = key.dead_letter .. job end
  return redis.call('EXISTS', unpack(names)) > 0
end

-- Where each stands among the arguments, which result is its, and for how many ms its mark is kept; a job
-- that comes twice is lost the second time.
local function plainly_done()
  local asked, jobs, seen = { starts = {}, places = {}, kept = {} }, {}, {}
  asked.seldom = { key.suspects, key.unhandled, key.throttled, key.failures, key.redelivered }
  local run, place = 1, 0
  while run <= #ARGV do
    local number_of_it = tonumber(ARGV[run + 2])
    local is_plain, details = is_plainly_done(ARGV[run], ARGV[run + 1])
    local kept = is_plain and small_number(details[1])
    run = run + 3
    for i = run, is_plain and run + 4 * number_of_it - 1 or 0, 4 do
      local job = ARGV[i]
      if not seen[job] and ARGV[i + 2] ~= '' then
        seen[job] = true
        local at = #jobs + 1
        asked.starts[at], asked.places[at], asked.kept[at] = i, place + 1 + (i - run) / 4, kept
        jobs[at] = job
      end
    end
    run, place = run + 4 * number_of_it, place + number_of_it
  end
  if #jobs == 0 or are_special(asked, jobs) then return asked, {}, place end
  asked.has_past = {}
  for _, name in ipairs(asked.has_seldom and { key.failures, key.redelivered } or {}) do
    for at, raw in ipairs(redis.pcall('HMGET', name, unpack(jobs))) do
      asked.has_past[at] = asked.has_past[at] or raw
    end
  end
  return asked, redis.call('HMGET', key.claims, unpack(jobs)), place
end

-- Whose token it is, and what their marks are called; by organization, whose breaker doesn't count.
local function plainly_held(asked, claims)
  local still_held, marks, fields, by_organization = {}, {}, {}, {}
  for at, claim in ipairs(claims) do
    local i = asked.starts[at]
    local token = ARGV[i + 1]
    -- From behind the token on: to look at each of its characters costs more than to compare it.
    local id_from = claim and string.match(claim, '^:%d+:%d+:[^:]*:().', #token + 1)
    local is_its = id_from and token ~= '' and string.sub(claim, 1, #token) == token
    if is_its and not asked.has_past[at] then
      local organization = organization_of(ARGV[i])
      still_held[#still_held + 1] = at
      marks[#marks + 1] = mark_name(organization, string.sub(claim, id_from))
      if not by_organization[organization] then
        by_organization[organization] = { bytes = 0 }
        fields[#fields + 1] = key.breaker .. organization
        fields[#fields + 1] = key.trouble .. organization
      end
    end
  end
  if #marks == 0 then return {}, {}, {} end
  local said = redis.call('HMGET', key.organizations, unpack(fields))
  for i = 1, #fields, 2 do
    local organization = string.sub(fields[i], #key.breaker + 1)
    by_organization[organization].trouble = said[i + 1]
    if said[i] then by_organization[organization] = nil end
  end
  return still_held, marks, by_organization
end

local function end_plainly(asked, still_held, marks, by_organization)
  if #marks == 0 then return {} end
  local jobs, names, ending = {}, {}, end_told()
  for nth, mark in ipairs(redis.call('MGET', unpack(marks))) do
    local at = still_held[nth]
    local i = asked.starts[at]
    local job = ARGV[i]
    local organization = organization_of(job)
    local leaving = by_organization[organization]
    if leaving and mark == 'pending:' .. key.in_mark(job) then
      -- Without a call of a function for each event, as `done_mark` would be.
      local tail = ARGV[i + 3]
      local is_told = tail ~= '' and ending ~= ''
      local done = is_told and 'done:' .. key.in_mark(job) .. ending .. tail or 'done:' .. key.in_mark(job)
      redis.call('SET', marks[nth], done, 'PX', asked.kept[at])
      results[asked.places[at]] = 'done'
      jobs[#jobs + 1] = job
      leaving[#leaving + 1] = job
      names[#names + 1] = key.job .. job
      names[#names + 1] = key.arq_retry .. job
      leaving.bytes = leaving.bytes + ceil(ARGV[i + 2] * 1.3)
    end
  end
  if #jobs == 0 then return jobs end
  redis.call('HDEL', key.claims, unpack(jobs))
  redis.call('DEL', unpack(names))
  leave_line(jobs)
  if asked.has_seldom and redis.call('EXISTS', unpack(asked.seldom)) > 0 then
    for _, name in ipairs({ key.suspects, key.unhandled, key.throttled }) do
      redis.call('HDEL', name, unpack(jobs))
    end
  end
  count('handled', #jobs)
  return jobs
end

-- Answers whether anybody may be parked who can run now.
local function free_plainly(by_organization)
  local parked = {}
  for organization, leaving in pairs(by_organization) do
    if #leaving > 0 then
      local gone = redis.call('ZREM', key.accepted, unpack(leaving))
      add(slots, organization, -#leaving)
      add(waiting, organization, -gone)
      hold(organization, 'waiting', -leaving.bytes - gone * cost_of_payload(0))
      freed[organization] = true
      end_row(organization, leaving.trouble)
      parked[#parked + 1] = key.parked .. organization
    end
  end
  return #parked > 0 and redis.call('EXISTS', unpack(parked)) > 0
end

do
  local asked, claims, number_of_them = plainly_done()
  local still_held, marks, by_organization = plainly_held(asked, claims)
  local ended = end_plainly(asked, still_held, marks, by_organization)
  if not free_plainly(by_organization) and #ended == number_of_them then
    write_tallies()
    return results
  end
end
