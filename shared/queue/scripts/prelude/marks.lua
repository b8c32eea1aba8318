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

-- The job in what a mark of a finished event has behind "done:"; what else it tells is made below.
local function done_by(named)
  return string.match(named, '^(.*) %w%w%w%w%w%w%w%w%w%w%w%w%w%w%w%w%w%w?%.%w%w?%w?%w?$') or named
end

-- A blank, and when it is now (ms) to the base of 36. Nothing while a live worker is of a version that
-- takes all behind "done:" for the job: `renew` knows.
local this_end

local function end_told()
  if this_end then return this_end end
  this_end = ''
  -- An operator's rights of an earlier version don't reach to it.
  if redis.pcall('EXISTS', key.told_marks) ~= 1 then return this_end end
  local left, base_36 = now_ms(), '0123456789abcdefghijklmnopqrstuvwxyz'
  for _ = 1, 8 do
    local digit = left % 36
    this_end = string.sub(base_36, digit + 1, digit + 1) .. this_end
    left = (left - digit) / 36
  end
  this_end = ' ' .. this_end
  return this_end
end

-- The mark of an event that is done.
--   tail  what its worker tells of how it was handled, as shared/queue/told.py has it; or '', or one of
--         those below
local function done_mark(job, tail)
  local told = tail ~= '' and end_told() or ''
  return 'done:' .. key.in_mark(job) .. (told ~= '' and told .. tail or '')
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
