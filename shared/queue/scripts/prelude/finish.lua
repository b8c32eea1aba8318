-- The end of every script: what was gathered is written.

-- One that somebody has made no number mustn't end a script that has written half of what it has to.
local function write_tally(name, tally)
  for organization, by in pairs(tally) do
    local sum = by ~= 0 and redis.pcall('HINCRBY', name, organization, by)
    if type(sum) == 'number' and sum <= 0 then redis.call('HDEL', name, organization) end
  end
end

local function write_tallies()
  write_tally(key.running, slots)
  write_tally(key.waiting, waiting)
  write_tally(key.buried, buried)
  write_tally(key.in_turn, in_turn)
  write_held()
  for name, by in pairs(counted) do redis.pcall('HINCRBY', key.counters, name, by) end
end

-- Every script ends here (but where it has done all plainly), so that nothing that it gathered is
-- forgotten.
local function finish(result)
  write_fields(key.claims, claims_changed)
  write_fields(key.suspects, suspicions_changed)
  if next(turns_changed) then write_turns() end
  write_fields(key.rates, rates_changed)
  write_places()
  write_removals()
  write_marks()
  write_tallies()
  unpark_freed()
  return result
end
