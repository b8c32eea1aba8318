-- index: lists of dead letters are put right, some at a time.
--
-- Arguments: 'look', jobs
--         or 'list', then of each: job, name of its group, error, place
--         or 'sweep groups', their reason, then of each: organization, name; of such as have few
--         or 'sweep group', reason, organization, name, cursor ('0' at the beginning), about how many
--         or 'sweep kind', kind, cursor, about how many
-- Result: of 'look' the jobs that have a letter, and aren't listed as it says; of 'list' how many were
--   listed; of the others the next cursor ('0' at the end).
-- Transition: none of a job's. An earlier version lists no letter that it writes, and leaves those listed that
--   it removes.

local function is_listed(job, group, died_at)
  local name = group and key.dead_group .. organization_of(job) .. ':' .. group
  local listed_at = name and redis.call('ZSCORE', name, job)
  return listed_at and tonumber(listed_at) == tonumber(died_at)
end

with_seldom()
local doing = {}

function doing.look()
  local found = {}
  for i = 2, #ARGV do
    local job = ARGV[i]
    local group, died_at, reason = unpack(redis.pcall('HMGET', key.dead_letter .. job, 'group', 'died_at',
      'reason'))
    if died_at and reason and not is_listed(job, group, died_at) then found[#found + 1] = job end
  end
  return found
end

local function list(job, cause)
  if redis.call('HEXISTS', key.dead_letter .. job, 'died_at') == 0 then return 0 end
  unlist_letter(organization_of(job), job)
  list_letter(organization_of(job), job, cause)
  return 1
end

-- What somebody's hand has made of one keeps none of the others out.
function doing.list()
  local number_of = 0
  for i = 2, #ARGV, 4 do
    local listed, one = pcall(list, ARGV[i], { ARGV[i + 1], ARGV[i + 2], ARGV[i + 3] })
    number_of = number_of + (listed and one or 0)
  end
  return number_of
end

-- Whoever is listed, and has no letter that says so, goes.
local function sweep(name, found, belongs)
  local gone = {}
  for i = 1, #found, 2 do
    local letter = redis.pcall('HMGET', key.dead_letter .. found[i], 'died_at', 'group', 'reason', 'type')
    local is_it = letter[1] and tonumber(letter[1]) == tonumber(found[i + 1]) and letter[2]
    if not (is_it and belongs(unpack(letter, 2, 4))) then gone[#gone + 1] = found[i] end
  end
  call_for_all('ZREM', name, gone)
end

local function sweep_group(reason, organization, group, found)
  local name = key.dead_group .. organization .. ':' .. group
  sweep(name, found or redis.call('ZRANGE', name, 0, -1, 'WITHSCORES'), function(its)
    return its == group
  end)
  tally_group(organization, group, reason)
end

doing['sweep groups'] = function()
  for i = 3, #ARGV, 2 do sweep_group(ARGV[2], ARGV[i], ARGV[i + 1]) end
  return '0'
end

doing['sweep group'] = function()
  local name = key.dead_group .. ARGV[3] .. ':' .. ARGV[4]
  local after, found = unpack(redis.call('ZSCAN', name, ARGV[5], 'COUNT', ARGV[6]))
  sweep_group(ARGV[2], ARGV[3], ARGV[4], found)
  return after
end

doing['sweep kind'] = function()
  local kind = ARGV[2]
  local name = key.dead_kind .. kind
  local after, found = unpack(redis.call('ZSCAN', name, ARGV[3], 'COUNT', ARGV[4]))
  sweep(name, found, function(_, reason, type_of_it)
    return reason and (kind == reason .. ':' .. (type_of_it or '') or kind == reason .. ':*')
  end)
  tally_kind(kind)
  return after
end

return finish(doing[ARGV[1]]())
