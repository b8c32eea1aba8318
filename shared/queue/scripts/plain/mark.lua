-- mark, of events of which nothing is known yet, as nothing is of most.
--
-- What isn't as plain is left to the rest of the script, as if it had come in a second call. Where turns
-- are asked for, or anybody is in one, that is all.

local now, retention = now_ms(), ARGV[1]
local results = { now }

-- Where each stands among the arguments; of a job or an event that comes twice, the first one.
local function plainly_asked()
  local starts, jobs, seen = {}, {}, {}
  for i = 3, #ARGV, 4 do
    local job, until_when = ARGV[i], ARGV[i + 3]
    if not seen[job] and ARGV[i + 2] ~= '' and (until_when == '' or now <= tonumber(until_when)) then
      seen[job] = true
      starts[#starts + 1] = i
      jobs[#jobs + 1] = job
    end
  end
  return starts, jobs
end

-- Claims that bear the token, and no event's id yet, with that added; and the marks of these.
local function plainly_learned(starts, jobs)
  local learned, claims, marks, taken = {}, {}, {}, {}
  if #jobs == 0 then return learned end
  for place, claim in ipairs(redis.call('HMGET', key.claims, unpack(jobs))) do
    local i = starts[place]
    local job, token, event_id = jobs[place], ARGV[i + 1], ARGV[i + 2]
    local name = mark_name(organization_of(job), event_id)
    -- From behind the token on: to look at each of its characters costs more than to compare it.
    local knows_none = claim and string.find(claim, '^:%d+:%d+:[^:]*:$', #token + 1)
    local is_its = token ~= '' and knows_none and string.sub(claim, 1, #token) == token
    if is_its and not taken[name] then
      taken[name] = true
      learned[#learned + 1] = i
      claims[#claims + 1] = job
      claims[#claims + 1] = claim .. event_id
      marks[#marks + 1] = name
      marks[#marks + 1] = 'pending:' .. key.in_mark(job)
    end
  end
  return learned, claims, marks
end

-- All or none, of which the former is what mostly happens.
local function mark_plainly(learned, claims, marks)
  if #learned == 0 or redis.call('MSETNX', unpack(marks)) == 0 then return false end
  redis.call('HSET', key.claims, unpack(claims))
  for _, i in ipairs(learned) do
    results[(i + 5) / 4] = 'fresh'
    hold(organization_of(ARGV[i]), 'marks', cost_of_mark(ARGV[i + 2]))
  end
  return 4 * #learned + 2 == #ARGV
end

if ARGV[2] == '' and redis.call('EXISTS', key.turns) == 0
  and mark_plainly(plainly_learned(plainly_asked())) then
  write_held()
  return results
end
