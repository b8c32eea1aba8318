-- arrive: what has been packed where an organization comes from stands here as it stood there.
--
-- Arguments: organization, the mover's token (hex), how often it has told of some since `open`, what the
--   names of turns begin with there; then of each thing its kind, how many arguments follow for it, and
--   these, '' where there is none:
--   job     as `pack` tells of one, with the ids that it stands for at the end
--   letter  job as marks name it, when it died (ms), the name of its group, error and place of that, its fields
--           and their values
--   value   what its name begins with: 'event', 'revivals' or 'state', the rest of its name, value, for
--           how long it is kept (ms; -1: for ever)
-- Result: 'arrived'; 'less' where not all is here that it has told; or 'lost' where the organization is
--   another mover's by now, or has arrived already.
-- Transition: as it was there → as it was there, but that all in line is parked. Nothing comes twice,
--   however often it is sent; what was delivered here again meanwhile is the same job.

local organization = ARGV[1]
local way = redis.call('HGET', key.moving, organization)
local shift = tonumber(string.match(way or '', '^in:%d+:(.*)$'))
if not shift or not is_the_movers(organization, ARGV[2]) then return finish('lost') end
if not has_all(organization, ARGV[2], ARGV[3]) then return finish('less') end

local turns_there_begin = ARGV[4]
local parked = key.parked .. organization
local prefixes = { event = key.event, revivals = key.revivals, state = key.state }

local function shifted(virtual)
  return number(math.max(tonumber(virtual) + shift, 2 ^ -40)) -- above 0, which is no time
end

local function take_place(job, place)
  redis.call('ZREM', key.queue, job)
  redis.call('ZREM', parked, job)
  if place == '' then return end
  if tonumber(place) >= key.deferred_from then
    redis.call('ZADD', key.queue, place, job)
  else
    redis.call('ZADD', parked, shifted(place), job)
    redis.call('SADD', key.held_back, organization)
  end
end

-- Its token is one that nobody holds, and keeps a slot; or there is none.
local function take_claim(job, raw)
  local token, rest, virtual, event_id = string.match(raw, '^(%x*):(%d+:%d+:)([^:]*):(.*)$')
  if not token then return end
  if #token ~= 40 then token = '' end
  if token ~= '' then add(slots, organization, 1) end
  if (tonumber(virtual) or 0) > 0 then virtual = shifted(virtual) end
  redis.call('HSET', key.claims, job, token .. ':' .. rest .. virtual .. ':' .. event_id)
end

-- Of its key, of a value, and its kind, which begins with the first: each is called so here.
local function renamed(name)
  if name == '' then return name end
  return key.turn .. string.sub(name, #turns_there_begin + 1)
end

local function take_turns(job, record)
  local turn = cmsgpack.unpack(record[11])
  for i = 1, 3 do turn[i] = renamed(turn[i]) end
  redis.call('HSET', key.turns, job, cmsgpack.pack(turn))
  if record[12] ~= '' then redis.call('ZADD', turn[1], record[12], job) end
  if record[13] ~= '' then redis.call('ZADD', turn[2], record[13], job) end
  if record[14] == '1' then redis.call('HSET', key.latest, turn[3], job) end
  if turn[4] then add(in_turn, organization, 1) end
  redis.call('DEL', key.superseded .. job)
  if #record > 14 then redis.call('RPUSH', key.superseded .. job, unpack(record, 15)) end
end

local take = {}

function take.job(record)
  local marked, payload, order = unpack(record)
  local job = key.from_mark(marked)
  local known = redis.call('ZSCORE', key.accepted, job)
  if known and tonumber(known) == tonumber(order) then return end -- it has come before
  take_place(job, record[4])
  if payload ~= '' then redis.call('SET', key.job .. job, payload) end
  if record[5] ~= '' then take_claim(job, record[5]) end
  if record[6] ~= '' then redis.call('SET', key.arq_retry .. job, record[6], 'EX', 88400) end
  hold(organization, 'waiting', cost_of_history(record[8]) - cost_of_history(known_in(key.failures, job)))
  for i, name in ipairs({ key.throttled, key.failures, key.unhandled, key.suspects }) do
    if record[6 + i] ~= '' then redis.call('HSET', name, job, record[6 + i]) end
  end
  if record[11] ~= '' then take_turns(job, record) end
  if not known then
    add(waiting, organization, 1)
    hold(organization, 'waiting', cost_of_payload(#payload))
  end
  redis.call('ZADD', key.accepted, order, job) -- last: by it one is known that has come
end

function take.letter(record)
  local marked = record[1]
  local job = key.from_mark(marked)
  local name = key.dead_letter .. job
  if redis.call('EXISTS', name) == 0 then
    with_seldom()
    redis.call('HSET', name, unpack(record, 6))
    hold(organization, 'dead', cost_of_record(bytes_of_record(name)))
    pcall(list_letter, organization, job, { record[3], record[4], record[5] })
  end
  if redis.call('ZADD', key.dead .. organization, record[2], job) == 1 then
    add(buried, organization, 1)
  end
end

function take.value(record)
  local name = prefixes[record[1]] .. organization .. ':' .. record[2]
  if record[4] == '-1' then
    redis.call('SET', name, record[3])
  else
    redis.call('SET', name, record[3], 'PX', math.max(1, tonumber(record[4])))
  end
end

local i = 5
while i <= #ARGV do
  local kind, number_of = ARGV[i], tonumber(ARGV[i + 1])
  take[kind]({ unpack(ARGV, i + 2, i + 1 + number_of) })
  i = i + 2 + number_of
end
note_told(organization, ARGV[2], tonumber(ARGV[3]) + 1)
return finish('arrived')
