-- settle, of events that are done and have neither read nor written a value, as most are.
--
-- What isn't as plain is left to the rest of the script, as if it had come in a second call: whatever is
-- in a turn, has a rate or a dead letter, and whose organization has a breaker that counts.

local results = {}
local done_details = {}

local function is_plainly_done(verb, packed)
  if verb ~= 'done' then return false end
  local details = done_details[packed]
  if not details then
    details = cmsgpack.unpack(packed)
    local retention = details[1]
    details.is_plain = #details[2] == 0 and #details[3] == 0 and details[4]
      and type(retention) == 'number' and retention % 1 == 0
      and retention >= 1 and retention < 2 ^ 53
    done_details[packed] = details
  end
  return details.is_plain
end

-- Where each stands among the arguments; a job that comes twice is lost the second time.
local function plainly_done()
  local starts, jobs, names, seen = {}, {}, { key.turns, key.rates }, {}
  for i = 1, #ARGV, 6 do
    local job = ARGV[i]
    if not seen[job] and ARGV[i + 3] ~= '' and is_plainly_done(ARGV[i + 2], ARGV[i + 4]) then
      seen[job] = true
      starts[#starts + 1] = i
      jobs[#jobs + 1] = job
      names[#names + 1] = key.dead_letter .. job
    end
  end
  if #jobs == 0 or redis.call('EXISTS', unpack(names)) > 0 then return {}, {} end
  return starts, redis.call('HMGET', key.claims, unpack(jobs))
end

-- Whose token it is, and what their marks are called; by organization, whose breaker doesn't count.
local function plainly_held(starts, claims)
  local held_starts, marks, fields, by_organization = {}, {}, {}, {}
  for place, i in ipairs(starts) do
    local token, event_id = string.match(claims[place] or '', '^(%x+):%d+:%d+:[^:]*:(.+)$')
    if token == ARGV[i + 1] then
      local organization = organization_of(ARGV[i])
      held_starts[#held_starts + 1] = i
      marks[#marks + 1] = mark_name(organization, event_id)
      if not by_organization[organization] then
        by_organization[organization] = {}
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
  return held_starts, marks, by_organization
end

local function end_plainly(starts, marks, by_organization)
  if #marks == 0 then return {} end
  local jobs, names, ending = {}, {}, end_told()
  for place, mark in ipairs(redis.call('MGET', unpack(marks))) do
    local i = starts[place]
    local job = ARGV[i]
    local organization = organization_of(job)
    local leaving = by_organization[organization]
    if leaving and mark == 'pending:' .. key.in_mark(job) then
      -- Without a call of a function for each event, as `done_mark` would be.
      local tail = ARGV[i + 5]
      local told = tail ~= '' and ending ~= '' and ending .. tail or ''
      redis.call('SET', marks[place], 'done:' .. key.in_mark(job) .. told, 'PX', small_number(done_details[ARGV[i + 4]][1]))
      results[(i + 5) / 6] = 'done'
      jobs[#jobs + 1] = job
      leaving[#leaving + 1] = job
      names[#names + 1] = key.job .. job
      names[#names + 1] = key.arq_retry .. job
      hold(organization, 'waiting', -ceil(ARGV[i + 3] * 1.3))
    end
  end
  if #jobs == 0 then return jobs end
  redis.call('HDEL', key.claims, unpack(jobs))
  redis.call('DEL', unpack(names))
  leave_line(jobs)
  if redis.call('EXISTS', key.suspects, key.unhandled, key.throttled, key.failures) > 0 then
    for i, raw in ipairs(redis.call('HMGET', key.failures, unpack(jobs))) do
      if raw then hold(organization_of(jobs[i]), 'waiting', -cost_of_history(raw)) end
    end
    for _, name in ipairs({ key.suspects, key.unhandled, key.throttled, key.failures }) do
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
      hold(organization, 'waiting', -gone * cost_of_payload(0))
      freed[organization] = true
      end_row(organization, leaving.trouble)
      parked[#parked + 1] = key.parked .. organization
    end
  end
  return #parked > 0 and redis.call('EXISTS', unpack(parked)) > 0
end

do
  local starts, marks, by_organization = plainly_held(plainly_done())
  local ended = end_plainly(starts, marks, by_organization)
  if not free_plainly(by_organization) and 6 * #ended == #ARGV then
    write_tallies()
    return results
  end
end
