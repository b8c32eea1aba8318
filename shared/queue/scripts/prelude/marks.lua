-- Marks: whose an event id is, and what became of it.

local marks_known, marks_taken = {}, {}

local function mark_name(organization, event_id)
  return key.event .. organization .. ':' .. event_id
end

-- MGET says of a foreign value of another type what it says of none; GET will say what is wrong.
local function fetch_marks(names)
  if #names == 0 then return end
  local absent = {}
  for i, raw in ipairs(redis.call('MGET', unpack(names))) do
    if raw then marks_known[names[i]] = raw else absent[#absent + 1] = names[i] end
  end
  if #absent == 0 or redis.call('EXISTS', unpack(absent)) > 0 then return end
  for _, name in ipairs(absent) do marks_known[name] = false end
end

local function read_mark(name)
  local raw = marks_taken[name]
  if raw == nil then raw = marks_known[name] end
  if raw == nil then raw = redis.call('GET', name) end
  return raw
end

-- The history that the mark of a finished event has behind all else, and what stands in front of it.
-- A history begins as what it is, a list of three, so that a line break in a foreign job's id is none.
local function history_in(mark)
  local at = string.find(mark, '\n\147', 1, true)
  if not at then return '', mark end
  return string.sub(mark, at + 1), string.sub(mark, 1, at - 1)
end

-- The job in what a mark of a finished event has behind "done:"; shared/queue/told.py has the form of what
-- else it tells, and the earlier one of two digits more.
local function done_by(named)
  local _, told = history_in(named)
  return string.match(told, '^(.*) %w%w%w%w%w%w%w%w%w%w%w%w%w%w%w%w?%w?%w?[.:]%w+[.:]?%w*$') or told
end

-- A blank, and when it is now, in seconds since 2020 to the base of 36. Nothing while a live worker is of
-- a version that reads less than is written here: `renew` knows.
--   nobody_lives  whether there is no worker that might not
local this_end

local function end_told(nobody_lives)
  if this_end then return this_end end
  this_end = ''
  -- An operator's rights of an earlier version don't reach to it.
  if not nobody_lives and redis.pcall('GET', key.told_marks) ~= '3' then return this_end end
  local base_36, since = '0123456789abcdefghijklmnopqrstuvwxyz', 1577836800
  local left = math.max(0, math.floor(now_ms() / 1000) - since)
  for _ = 1, 6 do
    local digit = left % 36
    this_end = string.sub(base_36, digit + 1, digit + 1) .. this_end
    left = (left - digit) / 36
  end
  this_end = ' ' .. this_end
  return this_end
end

-- What no handler has ended: a word stands for the worker, and the attempts are none.
local discarded_by_hand, a_newer_one_stands = '0000disc0.0', '0000newr0.0'

-- The event is this job's from now on.
local function take_mark(name, job)
  marks_taken[name] = 'pending:' .. key.in_mark(job)
end

local function write_marks()
  local taken = as_arguments(marks_taken)
  if #taken > 0 then redis.call('MSET', unpack(taken)) end
end

-- Whoever has captured a delivery of a dead event can send it again and again. So redeliveries that
-- revive an event are counted, "number:time of the last one (ms)", for as long as a mark is kept;
-- a replay by hand takes the count away.
local function revivals_name(claim)
  return key.revivals .. claim.organization .. ':' .. claim.event_id
end
