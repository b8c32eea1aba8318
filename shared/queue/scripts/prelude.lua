-- Words that every script shares: a job's claim, its place, slots, flows of virtual time, removal.
-- The loader puts the table `key` (names in Redis, from shared/queue/keys.py) in front.
--
-- A claim is "token:attempts:claims:virtual time:event id". The token is empty when nobody holds
-- the job; `claims` counts the claims since the last outcome; the event id is empty until known.
-- The virtual time stays the text that Redis gave, since it is kept more often than compared.
--
-- A call of Redis costs more than what it does. So a batch is read as a whole by the functions
-- `fetch_…`, and what a script changes is gathered here and written by `finish`. Who reads by the
-- functions of this file sees what was gathered; who reads the queue itself calls `write_places`
-- first.

local counted, slots, waiting, buried, freed = {}, {}, {}, {}, {}
local claims_known, claims_read, claims_changed, places = {}, {}, {}, {}
local marks_known, marks_taken = {}, {}
local names_to_delete, leaving, freed_bytes = {}, {}, {}

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

local function count(name, by)
  counted[name] = (counted[name] or 0) + (by or 1)
end

local function add(tally, organization, by)
  tally[organization] = (tally[organization] or 0) + by
end

-- What an organization's keys take in Redis, in bytes by "organization:kind", as its budget counts
-- them. The kinds:
--   waiting  payloads of accepted events, where jobs come and go
--   dead     dead letters, where records do
--   marks    of events. Counted where one is made; Redis doesn't say when one expires.
--   state    what handlers have written; the same holds for what expires
-- `recount` puts right what time, or somebody's hand, has made untrue.
local held = { waiting = {}, dead = {}, marks = {}, state = {} }

-- By measurement: what a text takes grows by steps, and each key or place of it costs something, too.
local ceil = math.ceil

local function cost(bytes, places_of_it)
  return ceil(bytes * 1.3) + 200 * places_of_it
end

local function cost_of_payload(bytes) return cost(bytes, 2) end -- its key; queue and lists of jobs

local function cost_of_record(bytes) return cost(bytes, 5) end -- eleven fields; its mark is apart

local function cost_of_mark(event_id) return cost(#event_id, 1) end

local function cost_of_state(name, bytes) return cost(#name + bytes, 1) end

local function hold(organization, kind, by)
  local tally = held[kind]
  tally[organization] = (tally[organization] or 0) + by
end

-- By STRLEN or HSTRLEN; 0 for what isn't there, and for a foreign value of another type.
local function length_of(...)
  local length = redis.pcall(...)
  return type(length) == 'number' and length or 0
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
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

-- A job that none of ours made belongs to a flow of its own: '?' is no organization's id.
local organizations = {}

local function organization_of(job)
  local organization = organizations[job]
  if organization then return organization end
  organization = string.match(job, '^([%w_-]+):')
  if not organization or #organization > 64 then organization = '?' end
  organizations[job] = organization
  return organization
end

-- Of hashes with a field for each job: what they hold is read, and what has changed is written.
local function fetch_fields(name, known, jobs)
  if #jobs == 0 then return end
  for i, raw in ipairs(redis.call('HMGET', name, unpack(jobs))) do known[jobs[i]] = raw end
end

local function write_fields(name, changed)
  local fields, gone = as_arguments(changed)
  call_for_all('HSET', name, fields)
  call_for_all('HDEL', name, gone)
end

local function fetch_claims(jobs)
  fetch_fields(key.claims, claims_known, jobs)
end

local function raw_claim(job)
  local raw = claims_changed[job]
  if raw == nil then raw = claims_known[job] end
  if raw == nil then raw = redis.call('HGET', key.claims, job) end
  return raw
end

local function read_claim(job)
  local raw = raw_claim(job)
  local token, attempts, claims, virtual, event_id
  if raw then
    token, attempts, claims, virtual, event_id = string.match(raw, '^(%x*):(%d+):(%d+):([^:]*):(.*)$')
  end
  return {
    job = job,
    organization = organization_of(job),
    token = token or '',
    attempts = tonumber(attempts) or 0,
    claims = tonumber(claims) or 0,
    virtual = tonumber(virtual) and virtual or '0',
    event_id = event_id or '',
  }, not raw
end

local function write_claim(claim)
  claims_changed[claim.job] = claim.token .. ':' .. small_number(claim.attempts) .. ':'
    .. small_number(claim.claims) .. ':' .. claim.virtual .. ':' .. claim.event_id
end

-- What is known of a suspect beyond its claim stands in a hash of its own, since the scripts of
-- workers of an older version read, and write, a claim as it has always been:
-- "attempts:claims:grouped:waits:blocked:alone", where
--   attempts  are the claim's when this was written. Another number is another life of the job, or
--             an outcome, of which an older script has told nothing here: then only `blocked` holds.
--   claims    are the claim's, too. Another number is a claim by somebody who knows of nothing here.
--   grouped   counts the claims since the last outcome that others ran beside. They are left out of
--             the claim's own `claims`: an older version gives each suspect alone, and buries by
--             that number, so that with them in it, it would bury a poison job's whole group.
--   waits     is how often a worker has given up to wait, for this one's sake, until it holds nothing
--   blocked   is how often its handler has blocked its worker's loop
--   alone     is 1 where the claim that is held, or was the last one, was given alone
-- Few jobs are ever suspects, so a script asks once whether there is any.
local suspects_there
local suspicions_known, suspicions_changed = {}, {}

local function any_suspects()
  if suspects_there == nil then suspects_there = redis.call('EXISTS', key.suspects) == 1 end
  return suspects_there
end

local function fetch_suspicions(jobs)
  if any_suspects() then fetch_fields(key.suspects, suspicions_known, jobs) end
end

local function raw_suspicion(job)
  local raw = suspicions_changed[job]
  if raw ~= nil or not any_suspects() then return raw end
  if suspicions_known[job] == nil then fetch_suspicions({ job }) end
  return suspicions_known[job]
end

-- To be asked for before the claim is changed: it says whether what was written still holds.
local function suspicion_of(claim)
  if claim.suspicion then return claim.suspicion end
  local attempts, claims, grouped, waits, blocked, alone =
    string.match(raw_suspicion(claim.job) or '', '^(%d+):(%d+):(%d+):(%d+):(%d+):([01])$')
  local holds = tonumber(attempts) == claim.attempts
  local is_last = holds and tonumber(claims) == claim.claims
  claim.suspicion = {
    grouped = holds and tonumber(grouped) or 0,
    waits = holds and tonumber(waits) or 0,
    blocked = tonumber(blocked) or 0,
    alone = is_last and alone == '1',
    in_group = is_last and alone == '0' and tonumber(grouped) > 0,
  }
  return claim.suspicion
end

local function write_suspicion(claim)
  local known = suspicion_of(claim)
  local is_any = known.grouped > 0 or known.waits > 0 or known.blocked > 0 or known.alone
  if is_any then
    suspicions_changed[claim.job] = claim.attempts .. ':' .. claim.claims .. ':' .. known.grouped
      .. ':' .. known.waits .. ':' .. known.blocked .. ':' .. (known.alone and '1' or '0')
  elseif suspicions_changed[claim.job] or any_suspects() then
    suspicions_changed[claim.job] = false
  end
end

-- All claims since the last outcome, whoever ran beside.
local function claims_of(claim)
  if claim.claims == 0 or not any_suspects() then return claim.claims end
  return claim.claims + suspicion_of(claim).grouped
end

-- The claim that is held counts as one in which others ran beside the job.
local function count_grouped(claim)
  local known = suspicion_of(claim)
  if known.alone then claim.claims = claim.claims - 1 end
  known.grouped, known.alone = known.grouped + 1, false
  write_suspicion(claim)
end

-- The claim that is held doesn't count: its holder gives it back, or has never heard of it.
local function uncount(claim)
  local known = suspicion_of(claim)
  if known.in_group then
    known.grouped = known.grouped - 1
  else
    claim.claims = math.max(claim.claims - 1, 0)
    known.alone = false -- what was said of the claim before is not known any more
  end
  write_suspicion(claim)
end

-- Claims without an outcome from which on a job may be what ends its workers.
local suspect_from = 2

-- An outcome begins the count anew. Who has blocked its worker's loop stays a suspect all the same.
local function count_outcome(claim, has_blocked)
  local known = suspicion_of(claim)
  claim.attempts = claim.attempts + 1
  claim.claims = has_blocked and suspect_from or 0
  known.grouped, known.waits, known.alone = 0, 0, false
  if has_blocked then known.blocked = known.blocked + 1 end
  write_suspicion(claim)
end

-- A job's score in the queue; false: it has no place there, nor among parked jobs.
local function write_places()
  local members, gone = as_arguments(places, true)
  places = {}
  call_for_all('ZADD', key.queue, members)
  if call_for_all('ZREM', key.queue, gone) == #gone then return end
  for _, job in ipairs(gone) do redis.call('ZREM', key.parked .. organization_of(job), job) end
end

-- The one rule: whoever does not hold the job's token changes nothing.
local function held_claim(job, token)
  local claim = claims_changed[job] == nil and claims_read[job] or read_claim(job)
  claims_read[job] = nil -- it may be changed from now on, and nothing come of that
  if token ~= '' and claim.token == token then return claim end
  return nil
end

-- A slot is freed exactly when a token goes from set to cleared.
local let_another_try

local function clear_token(claim)
  if claim.token == '' then return end
  claim.token = ''
  add(slots, claim.organization, -1)
  freed[claim.organization] = true
  let_another_try(claim)
end

-- In order, who retries keeps the organization's only slot until it is due. The slot is the
-- token's; this one nobody holds, and it is longer than those that somebody does.
local function keep_slot(claim)
  claim.token = redis.sha1hex(claim.token)
end

local function keeps_slot(claim)
  return #claim.token == 40
end

local function set_token(claim, token)
  if claim.token == '' then add(slots, claim.organization, 1) end
  claim.token = token
end

-- What is none, or would defer what it is given to, counts for nothing: somebody's hand wrote it.
local function as_virtual_time(raw)
  local time = tonumber(raw) or 0
  return time >= 0 and time < key.deferred_from and time or 0
end

local function system_time()
  return as_virtual_time(redis.call('HGET', key.flows, '*'))
end

-- The system's virtual time only rises.
local function raise_system_time(virtual)
  if virtual > system_time() then redis.call('HSET', key.flows, '*', number(virtual)) end
end

local function wake_one()
  if redis.call('LLEN', key.wake) == 0 then redis.call('LPUSH', key.wake, '1') end
end

-- What the endpoints file and the operators say of an organization, and what its handlers' ends
-- say. Its field in the hash is "cap:weight"; an empty cap is the default one.
-- "pause:{organization}" is there while it is paused, "breaker:{organization}" after failures:
--   closed:consecutive failures:handled:failed   events go on, and are counted
--   open:until (ms)                              events wait
--   trying:job                                   one event is let through; no job: the next one
-- "hold:{organization}", "until (ms):why", is there while its handlers have asked to be left alone.
local profiles = {}

local longest_hold = 3600000

-- None that is over, though no claim has taken it away, nor one that lasts longer than any may: after
-- a fail-over, the clock of another Redis may be hours behind.
local function end_of_hold(raw)
  local until_when, now = tonumber(string.match(raw, '^%d+')), now_ms()
  if until_when and until_when > now and until_when <= now + longest_hold then return until_when end
  return nil
end

local function profile_of(organization)
  local known = profiles[organization]
  if known then return known end
  local raw, pause, breaker, held_until = unpack(redis.call('HMGET', key.organizations,
    organization, key.pause .. organization, key.breaker .. organization, key.hold .. organization))
  local cap, weight = string.match(raw or '', '^(%d*):([%d.]+)$')
  local state, rest = string.match(breaker or '', '^(%a+):(.*)$')
  known = {
    cap = tonumber(cap),
    weight = tonumber(weight) or 1,
    paused = pause and true or false,
    held_until = held_until and end_of_hold(held_until),
    breaker = state or 'closed',
    breaker_rest = rest or '',
  }
  profiles[organization] = known
  return known
end

local function set_breaker(organization, state, rest)
  local profile = profile_of(organization)
  profile.breaker, profile.breaker_rest = state, rest
  redis.call('HSET', key.organizations, key.breaker .. organization, state .. ':' .. rest)
end

local function close_breaker(organization)
  local profile = profile_of(organization)
  profile.breaker, profile.breaker_rest = 'closed', ''
  redis.call('ZREM', key.breakers, organization)
  freed[organization] = true
  return redis.call('HDEL', key.organizations, key.breaker .. organization)
end

-- Of several holds the longest wins: each handler knows only what it was told itself.
local function hold_back(organization, until_when, why)
  local profile = profile_of(organization)
  if profile.held_until and profile.held_until >= until_when then return end
  redis.call('ZADD', key.due, number(until_when), key.hold .. organization) -- first: what ends it
  redis.call('HSET', key.organizations, key.hold .. organization, number(until_when) .. ':' .. why)
  profile.held_until = until_when
end

local function lift_hold(organization)
  profile_of(organization).held_until = nil
  redis.call('ZREM', key.due, key.hold .. organization)
  freed[organization] = true
  return redis.call('HDEL', key.organizations, key.hold .. organization)
end

-- An organization's events wait while it is paused or held, and while its breaker is open or watches
-- the one event that it has let through.
local function must_wait(organization)
  local profile = profile_of(organization)
  return profile.paused or profile.held_until or profile.breaker == 'open'
    or profile.breaker == 'trying' and profile.breaker_rest ~= ''
end

local function is_tried(claim)
  local profile = profile_of(claim.organization)
  return profile.breaker == 'trying' and profile.breaker_rest == claim.job
end

-- The event that was let through has ended without saying anything about the organization.
function let_another_try(claim)
  if is_tried(claim) then set_breaker(claim.organization, 'trying', '') end
end

-- Without a cap of its own, an organization may hold four of five slots of all live workers: the
-- rest stays for the others while its handlers hang.
local default_cap

local function cap_of(organization)
  local own = profile_of(organization).cap
  if own then return own end
  if not default_cap then
    local all = tonumber(redis.call('GET', key.slots)) or 0
    default_cap = all > 0 and math.max(1, math.floor(all * 0.8)) or math.huge
  end
  return default_cap
end

-- One at a time means in order of acceptance. Only a cap that somebody has set says so: a default
-- one is 1 where there are few slots, and then nobody waits for another's retry.
local function in_order(organization)
  return profile_of(organization).cap == 1
end

local function running_of(organization)
  return tonumber(redis.call('HGET', key.running, organization)) or 0
end

-- Retries and expired leases form a flow beside the organization's fresh events: they don't go
-- behind its backlog, and they don't go ahead of the others.
local function retry_time(organization)
  local field = 'retry:' .. organization
  local last = as_virtual_time(redis.call('HGET', key.flows, field))
  local virtual = math.max(system_time(), last) + 1 / profile_of(organization).weight
  redis.call('HSET', key.flows, field, number(virtual))
  return virtual
end

-- Up to the free slots of an organization's parked jobs go back in line, at their old places.
local function unpark(organization)
  local parked = key.parked .. organization
  if redis.call('EXISTS', parked) == 0 or must_wait(organization) then return end
  local most = profile_of(organization).breaker == 'trying' and 1 or 256
  local free = math.min(cap_of(organization) - running_of(organization), most)
  if free <= 0 then return end
  local popped = redis.call('ZPOPMIN', parked, free)
  if #popped == 0 then return end
  for i = 1, #popped, 2 do popped[i], popped[i + 1] = popped[i + 1], popped[i] end
  call_for_all('ZADD', key.queue, popped)
  wake_one()
end

local function has_place(job)
  if places[job] ~= nil then return places[job] end
  return redis.call('ZSCORE', key.queue, job)
    or redis.call('ZSCORE', key.parked .. organization_of(job), job)
end

-- A job gets its payload and a place in line; answers whether it is counted from now on. One that
-- was here before has lost its payload or its place to somebody's hand: it keeps what it has, and
-- without a place it is due at once. The next claim sees to all else, as it does where a lease is
-- over: so the ingress needs no right to the claims.
local function put_in_line(job, payload, received_at, next_place)
  redis.call('SETNX', key.job .. job, payload)
  if redis.call('ZADD', key.accepted, 'NX', received_at, job) == 1 then
    local organization = organization_of(job)
    add(waiting, organization, 1)
    hold(organization, 'waiting', cost_of_payload(#payload))
    places[job] = number(next_place(organization))
    return true
  end
  if not has_place(job) then places[job] = number(now_ms()) end
  return false
end

-- Whether the name is one that ours give to a job: an organization, and a body's digest.
local function is_ours(job)
  local name = '^[^:]+:' .. string.rep('[%da-f]', 32) .. '$'
  return organization_of(job) ~= '?' and string.match(job, name) ~= nil
end

-- A job that arq's own enqueue_job made counts, and stays, like ours from its first claim on. One
-- that has expired before was never accepted by anybody; nor was what stands under a name of ours
-- without having been accepted, which its digest has yet to prove. But of ours no loss is passed over.
local function adopt_foreign(job, now)
  local payload = key.job .. job
  local is_there = redis.call('PERSIST', payload) == 1 or redis.call('EXISTS', payload) == 1
  if is_there == is_ours(job) then return end
  if redis.call('ZADD', key.accepted, 'NX', now, job) == 1 then
    add(waiting, organization_of(job), 1)
    hold(organization_of(job), 'waiting', cost_of_payload(length_of('STRLEN', key.job .. job)))
  end
end

-- The worker that takes no more until it holds nothing, and the suspect that waits for that.
local function duty()
  return string.match(redis.call('GET', key.duty) or '', '^([^\n]*)\n(.*)$')
end

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
  marks_taken[name] = 'pending:' .. job
end

local function count_mark(organization, event_id, is_there)
  hold(organization, 'marks', (is_there and 1 or -1) * cost_of_mark(event_id))
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

-- Whether a job of ours dies of this since somebody's hand has harmed its payload.
local function is_harmed(reason)
  return reason == 'payload_lost' or reason == 'payload_changed' or reason == 'undecodable'
end

local function is_by_hand(job)
  return redis.call('HEXISTS', key.dead_letter .. job, 'by_hand') == 1
end

-- The dead letter, by its name, that is reason enough to leave the claim's event dead, since its
-- mark tells of it. None where somebody has deleted it, or replays it by hand (whichever job brings
-- the event then, it lives again), or replays another letter that the job itself has left.
local function standing_letter(claim, mark)
  local job = string.match(mark or '', '^dead:(.*)$')
  if not job or is_by_hand(job) or is_by_hand(claim.job) then return nil end
  local record = key.dead_letter .. job
  local reason = redis.call('HGET', record, 'reason')
  -- What the redelivery brings may be the only good bytes that there are.
  if not reason or is_harmed(reason) then return nil end
  return record
end

-- Most jobs have no record; asked once for a batch, it needn't be asked for each.
local no_records = false

local function fetch_records(jobs)
  local names = {}
  for i, job in ipairs(jobs) do names[i] = key.dead_letter .. job end
  no_records = #names > 0 and redis.call('EXISTS', unpack(names)) == 0
end

-- What changes in it later is small, so that it goes as what it came as.
local function bytes_of_record(record)
  return length_of('HSTRLEN', record, 'payload') + length_of('HSTRLEN', record, 'error')
end

local function remove_record(organization, job)
  if no_records then return false end
  local record = key.dead_letter .. job
  local bytes = bytes_of_record(record)
  if redis.call('DEL', record) == 1 then
    redis.call('ZREM', key.dead .. organization, job)
    add(buried, organization, -1)
    hold(organization, 'dead', -cost_of_record(bytes))
    return true
  end
  return false
end

-- All of it: payload, place, claim, slot, and its part in every count. Whoever holds it has said how
-- long the payload is, for to ask Redis costs more than that.
local function remove_job(claim)
  local job, organization = claim.job, claim.organization
  if claims_changed[job] ~= false then
    local bytes = claim.bytes or length_of('STRLEN', key.job .. job)
    freed_bytes[organization] = (freed_bytes[organization] or 0) + ceil(bytes * 1.3)
  end
  names_to_delete[#names_to_delete + 1] = key.job .. job
  names_to_delete[#names_to_delete + 1] = key.arq_retry .. job
  places[job] = false
  leaving[organization] = leaving[organization] or {}
  table.insert(leaving[organization], job)
  clear_token(claim)
  claims_changed[job] = false
  suspicions_changed[job] = nil -- `write_removals` has it go
end

local function write_removals()
  if #names_to_delete == 0 then return end
  redis.call('DEL', unpack(names_to_delete))
  -- Most jobs stand in none of these.
  for _, name in ipairs({ key.unhandled, key.throttled }) do
    if redis.call('EXISTS', name) == 1 then
      for _, jobs in pairs(leaving) do call_for_all('HDEL', name, jobs) end
    end
  end
  for organization, jobs in pairs(leaving) do
    local gone = call_for_all('ZREM', key.accepted, jobs)
    add(waiting, organization, -gone)
    hold(organization, 'waiting', -freed_bytes[organization] - gone * cost_of_payload(0))
    if any_suspects() then call_for_all('HDEL', key.suspects, jobs) end
  end
end

-- The job that a mark names as the event's carrier, where somebody has deleted its payload: it
-- carries nothing any more.
local function lost_carrier(mark)
  local job = string.match(mark, '^pending:(.*)$')
  if not job then return nil end
  local is_removed = claims_changed[job] == false
  if is_removed or redis.call('EXISTS', key.job .. job) == 0 then return job end
  return nil
end

-- One that somebody has made no number mustn't end a script that has written half of what it has to.
local function write_tally(name, tally)
  for organization, by in pairs(tally) do
    local sum = by ~= 0 and redis.pcall('HINCRBY', name, organization, by)
    if type(sum) == 'number' and sum <= 0 then redis.call('HDEL', name, organization) end
  end
end

-- Unlike a tally it may fall below nothing, while a recount has yet to add what was never counted.
-- Who only adds has no right to remove a field.
local function write_held()
  for kind, tally in pairs(held) do
    for organization, by in pairs(tally) do
      local field = organization .. ':' .. kind
      local sum = by ~= 0 and redis.pcall('HINCRBY', key.bytes, field, by)
      if sum == 0 and by < 0 then redis.call('HDEL', key.bytes, field) end
    end
  end
end

-- Few organizations have parked jobs: asked for all at once, most scripts ask no further.
local function unpark_freed()
  local names = {}
  for organization in pairs(freed) do names[#names + 1] = key.parked .. organization end
  if #names == 0 then return end
  if #names <= most_arguments and redis.call('EXISTS', unpack(names)) == 0 then return end
  for organization in pairs(freed) do unpark(organization) end
end

-- One job's trouble (a foreign value under one of our names) is not its neighbours' trouble.
local function protected(step, ...)
  local ok, result = pcall(step, ...)
  if ok then return result end
  return 'refused:' .. tostring(type(result) == 'table' and result.err or result)
end

-- Every script ends here, so that nothing that it gathered is forgotten.
local function finish(result)
  write_fields(key.claims, claims_changed)
  write_fields(key.suspects, suspicions_changed)
  write_places()
  write_removals()
  write_marks()
  write_tally(key.running, slots)
  write_tally(key.waiting, waiting)
  write_tally(key.buried, buried)
  write_held()
  unpark_freed()
  for name, by in pairs(counted) do redis.pcall('HINCRBY', key.counters, name, by) end
  return result
end
