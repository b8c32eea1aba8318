-- Batches: what a script gathers is written at once, at its end.
--
-- A call of Redis costs more than what it does. So a batch is read as a whole by the functions
-- `fetch_…`, and what a script changes is gathered and written by `finish`. Who reads by the
-- functions of the prelude sees what was gathered; who reads the queue itself calls `write_places`
-- first.

local most_arguments = 1000 -- Lua's stack has room for a few thousand

-- One call for many arguments; answers the sum of what the calls do.
local function call_for_all(command, name, arguments)
  local sum = 0
  for first = 1, #arguments, most_arguments do
    local last = math.min(first + most_arguments - 1, #arguments)
    sum = sum + redis.call(command, name, unpack(arguments, first, last))
  end
  return sum
end

-- What was gathered, as arguments: name and value (or the other way round) of each, and the names
-- whose value is false: those are to go.
local function as_arguments(gathered, value_first)
  local arguments, gone = {}, {}
  for name, value in pairs(gathered) do
    if value then
      arguments[#arguments + 1] = value_first and value or name
      arguments[#arguments + 1] = value_first and name or value
    else
      gone[#gone + 1] = name
    end
  end
  return arguments, gone
end

local counted = {}

local function count(name, by)
  counted[name] = (counted[name] or 0) + (by or 1)
end

local function add(tally, organization, by)
  tally[organization] = (tally[organization] or 0) + by
end

-- A script is one moment.
local this_moment

local function now_ms()
  if not this_moment then
    local time = redis.call('TIME')
    this_moment = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return this_moment
end

-- Whole numbers and fractions alike, without loss; most are whole, and quicker to write as such.
local function number(value)
  if value % 1 == 0 and math.abs(value) < 2 ^ 53 then return string.format('%d', value) end
  return string.format('%.17g', value)
end

-- The same for the few small numbers that are written again and again.
local small_numbers = {}

local function small_number(value)
  local text = small_numbers[value]
  if not text then
    text = number(value)
    small_numbers[value] = text
  end
  return text
end

-- By STRLEN or HSTRLEN; 0 for what isn't there, and for a foreign value of another type.
local function length_of(...)
  local length = redis.pcall(...)
  return type(length) == 'number' and length or 0
end

-- A job that none of ours made belongs to a flow of its own: '?' is no organization's id. To look at each
-- character of an id costs a multiple of looking for the colon behind it, and a batch is of few of them.
local organizations, by_beginning = {}, {}

local function organization_of(job)
  local organization = organizations[job]
  if organization then return organization end
  local beginning = string.sub(job, 1, string.find(job, ':', 1, true) or 0)
  organization = by_beginning[beginning]
  if not organization then
    organization = key.owner(job)
    if not organization or #organization > 64 then organization = '?' end
    -- With a colon in a tag in front of it, which none of ours has, that isn't where its owner ends.
    if string.sub(beginning, -#organization - 1, -2) == organization then
      by_beginning[beginning] = organization
    end
  end
  organizations[job] = organization
  return organization
end

-- Of hashes with a field for each job: what they hold is read, and what has changed is written.
local function fetch_fields(name, known, jobs)
  if #jobs == 0 then return end
  for i, raw in ipairs(redis.call('HMGET', name, unpack(jobs))) do known[jobs[i]] = raw end
end

local function write_fields(name, changed)
  if not next(changed) then return end
  local fields, gone = as_arguments(changed)
  call_for_all('HSET', name, fields)
  call_for_all('HDEL', name, gone)
end

-- One job's trouble (a foreign value under one of our names) is not its neighbours' trouble.
local function protected(step, ...)
  local ok, result = pcall(step, ...)
  if ok then return result end
  return 'refused:' .. tostring(type(result) == 'table' and result.err or result)
end
