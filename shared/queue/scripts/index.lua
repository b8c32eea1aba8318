-- index: lists of dead letters are put right, some at a time.
--
-- Arguments: 'look', organization, jobs
--         or 'list', organization, then of each: job, name of its group, error, place
--         or 'sweep group', organization, name of the group, cursor ('0' at the beginning), about how many
--         or 'sweep kind', kind, cursor, about how many
-- Result: of 'look' the jobs that have a letter, and aren't listed as it says; of 'list' how many were
--   listed; of the others the next cursor ('0' at the end).
-- Transition: none of a job's. An earlier version lists no letter that it writes, and leaves those listed that
--   it removes.

local function is_listed(organization, job, group, died_at)
  local listed_at = group and redis.call('ZSCORE', key.dead_group .. organization .. ':' .. group, job)
  return listed_at and tonumber(listed_at) == tonumber(died_at)
end

local doing = {}

function doing.look()
  local organization, found = ARGV[2], {}
  for i = 3, #ARGV do
    local job = ARGV[i]
    local group, died_at = unpack(redis.call('HMGET', key.dead_letter .. job, 'group', 'died_at'))
    if died_at and not is_listed(organization, job, group, died_at) then found[#found + 1] = job end
  end
  return found
end

function doing.list()
  local organization, number_of = ARGV[2], 0
  for i = 3, #ARGV, 4 do
    local job = ARGV[i]
    if redis.call('HEXISTS', key.dead_letter .. job, 'died_at') == 1 then
      unlist_letter(organization, job)
      list_letter(organization, job, { ARGV[i + 1], ARGV[i + 2], ARGV[i + 3] })
      number_of = number_of + 1
    end
  end
  return number_of
end

-- Whoever is listed, and has no letter that says so, goes.
local function sweep(name, cursor, number_of, belongs)
  local after, found = unpack(redis.call('ZSCAN', name, cursor, 'COUNT', number_of))
  local gone = {}
  for i = 1, #found, 2 do
    local letter = redis.call('HMGET', key.dead_letter .. found[i], 'died_at', 'group', 'reason', 'type')
    local is_it = letter[1] and tonumber(letter[1]) == tonumber(found[i + 1]) and letter[2]
    if not (is_it and belongs(unpack(letter, 2, 4))) then gone[#gone + 1] = found[i] end
  end
  call_for_all('ZREM', name, gone)
  return after
end

doing['sweep group'] = function()
  local organization, group = ARGV[2], ARGV[3]
  local name = key.dead_group .. organization .. ':' .. group
  local after = sweep(name, ARGV[4], ARGV[5], function(its) return its == group end)
  tally_group(organization, group)
  return after
end

doing['sweep kind'] = function()
  local kind = ARGV[2]
  local after = sweep(key.dead_kind .. kind, ARGV[3], ARGV[4], function(_, reason, type_of_it)
    return reason and (kind == reason .. ':' .. (type_of_it or '') or kind == reason .. ':*')
  end)
  tally_kind(kind)
  return after
end

return finish(doing[ARGV[1]]())
