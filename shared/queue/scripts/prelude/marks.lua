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
