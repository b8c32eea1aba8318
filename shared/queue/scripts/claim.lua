-- claim: a worker takes what is due, in virtual order, a batch at a time.
--
-- Arguments: worker, how many jobs at the most, lease (ms), token base (hex), how many jobs the
--   worker holds already, bytes of payload at the most, the worker's slots, claims without an
--   outcome that make a suspect, '1' where handlers that should have ended still run in it, '1'
--   where it waits for no suspect now, '1' where it has a handler with a key, '1' where its last claim
--   brought a large payload; then the job that it was given alone and that it doesn't want to be idle
--   beside any longer, and that job's token (or neither).
-- Result: {Redis's time (ms), 'suspects' | 'quiet' | 'more' | '', milliseconds until the next
--   deferred job is due or -1, patience, then for each job {job, token, attempts with an outcome,
--   claims without one before this, payload or '' where that is gone or, of a large one that the worker
--   is to read itself, its length}, and where anything more is known of it: 1 where the
--   last of these claims was alone in its worker, and how often it has blocked a worker's loop}.
--   `more` means that others are in line still. `quiet` asks the worker to take no more until it
--   holds nothing, since a suspect waits for it; `suspects`, since it has been given some. The
--   patience is how often the time for which it should do so is doubled.
-- Transitions: deferred and due → queued; expired lease → queued; queued → leased; queued →
--   parked (organization paused, held, its breaker open, at its cap, or over its rate); queued → removed (no payload,
--   and never accepted);
--   breaker open → trying, and parked → queued for the one event that it lets through; an
--   organization's hold ends, and parked → queued.

local worker, holding, worker_slots = ARGV[1], tonumber(ARGV[5]), tonumber(ARGV[7])
local tainted, waits_for_none = ARGV[9] == '1', ARGV[10] == '1'
local most_promoted, most_ends = 256, 64
-- A group of suspects has as many members as one eighth of the one that its claims have ended.
local group_shrinks = 8

-- Redis has it only now, from a connection that its worker has given up.
if redis.call('EXISTS', key.unread .. base) == 1 then return finish({ now, '', -1, 0 }) end

local due = redis.call('ZRANGE', key.queue, key.deferred_from, now, 'BYSCORE', 'LIMIT', 0,
  most_promoted)

-- A script may have no more than 200 local variables at a time: so those of this step end with it.
do
  -- Whose claim nobody has read, nobody can have harmed.
  local unread = {}

  local function is_unread(token)
    local of = string.sub(token, 1, -3)
    if unread[of] == nil then unread[of] = redis.call('EXISTS', key.unread .. of) == 1 end
    return unread[of]
  end

  -- Crash recovery is no mechanism of its own: an expired lease is a job that is due.
  local function promote(job)
    local claim, first = read_claim(job)
    if first then adopt_foreign(job, now) else redis.call('PERSIST', key.job .. job) end
    if claim.token ~= '' then
      if not keeps_slot(claim) then
        count('lease_expired')
        if is_unread(claim.token) then
          uncount(claim)
        else
          with_seldom()
          note_lost(claim)
        end
      end
      clear_token(claim)
      write_claim(claim)
    end
    put_back_in_line(claim)
  end

  fetch_claims(due)
  for _, job in ipairs(due) do promote(job) end
end
write_places()

-- A breaker whose time is over lets one event through.
local breaker = redis.call('ZRANGE', key.breakers, 0, 0, 'WITHSCORES')
while breaker[1] and tonumber(breaker[2]) <= now do
  redis.call('ZREM', key.breakers, breaker[1])
  set_breaker(breaker[1], 'trying', '')
  unpark(breaker[1])
  breaker = redis.call('ZRANGE', key.breakers, 0, 0, 'WITHSCORES')
end
-- So does an organization whose hold is over, or of which a start is due, with what may start then.
-- What else stands there a later version has put there, which sees to it.
local ended = 0
for _, name in ipairs(redis.call('ZRANGE', key.due, 0, now, 'BYSCORE', 'LIMIT', 0, most_ends)) do
  local kind, organization = string.match(name, '^(%a+:)(.*)$')
  if kind == key.hold or kind == key.rate then ended = ended + 1 end
  if kind == key.hold then
    lift_hold(organization)
    unpark(organization)
  elseif kind == key.rate then
    redis.call('ZREM', key.due, name)
    unpark(organization)
  end
end
-- Slots that promotion freed count in this very claim. Whoever waits for one goes back in line now: a
-- claim must not pass over an earlier event of an organization to a later one.
write_tally(key.running, slots)
slots = {}
unpark_freed()
freed = {}

local running = {}

-- Those of which something waits for the next start that is due.
local over_their_rate = {}

local has_rates = any_rates()

local function start_is_due(organization)
  if starts_due(organization) > 0 then return true end
  over_their_rate[organization] = true
  return false
end

local function slot_is_free(organization)
  running[organization] = running[organization] or running_of(organization)
  return running[organization] < cap_of(organization)
end

-- What is parked has left the queue at the end of a page, and is in its organization's own set.
local parked_here, parked_by = {}, {}

local function park(job, organization, virtual)
  parked_here[#parked_here + 1] = job
  parked_by[organization] = parked_by[organization] or {}
  table.insert(parked_by[organization], virtual)
  table.insert(parked_by[organization], job)
end

local function write_parked()
  call_for_all('ZREM', key.queue, parked_here)
  for organization, places_and_jobs in pairs(parked_by) do
    call_for_all('ZADD', key.parked .. organization, places_and_jobs)
    redis.call('SADD', key.held_back, organization)
  end
  parked_here, parked_by = {}, {}
end

local jobs, bytes, highest, skipped, looks = {}, 0, 0, 0, 0
local quiet, full, patience = false, false, 0
-- Suspects are given together, and with nobody else: these, up to so many. Whom that keeps out may
-- still be had by another worker.
local group, group_size, left_to_others = {}, math.huge, 0
-- Whose key nobody knows yet.
local undecided = {}

local function length(payload)
  return type(payload) == 'number' and payload or #payload
end

local function fits(more)
  return #jobs == 0 or bytes + more <= most_bytes
end

local function read_payloads(page, place)
  local names, members, sum = {}, {}, 0
  for i = place, math.min(place + 2 * (at_once - 1), #page), 2 do
    local name = key.job .. page[i]
    local there = is_large and length_of('STRLEN', name) or 0
    sum = sum + there
    if #names > 0 and (bytes + sum > most_bytes or there > aside) then break end
    members[#members + 1] = page[i]
    names[#names + 1] = name
  end
  for i, payload in ipairs(redis.call('MGET', unpack(names))) do
    payloads[members[i]] = payload
    is_large = is_large or payload and #payload > large
  end
  at_once = math.min(2 * at_once, 16)
end

local function payload_of(page, place)
  local job = page[place]
  if payloads[job] == nil then
    local there = is_large and length_of('STRLEN', key.job .. job) or 0
    if not fits(there) then return nil end
    if there > aside then payloads[job] = there else read_payloads(page, place) end
  end
  return payloads[job]
end

local function note_undecided()
  if #undecided == 0 then return end
  for i, order in ipairs(redis.call('ZMSCORE', key.accepted, unpack(undecided))) do
    local name = key.undecided .. organization_of(undecided[i])
    if order then redis.pcall('ZADD', name, order, undecided[i]) end
  end
end

local function give(claim, virtual, payload, is_suspect)
  claim.virtual = virtual
  local token = base .. string.format('%02x', #jobs)
  local bytes_of_it = length(payload)
  if bytes_of_it > aside then payload = bytes_of_it end
  local result = { claim.job, token, claim.attempts, claims_of(claim), payload }
  if any_suspects() then
    local known = suspicion_of(claim)
    result[6], result[7] = known.alone and 1 or 0, known.blocked
  end
  set_token(claim, token)
  if is_suspect then
    group[#group + 1] = claim
  else
    claim.claims = claim.claims + 1
    write_claim(claim)
  end
  running[claim.organization] = running[claim.organization] + 1
  if has_rates then take_start(claim.organization) end
  places[claim.job] = until_when
  if is_keyed and claim.event_id == '' then undecided[#undecided + 1] = claim.job end
  highest = math.max(highest, tonumber(virtual))
  bytes = bytes + bytes_of_it
  jobs[#jobs + 1] = result
end

-- Who has ended its worker alone stays alone; the others in ever smaller groups, so that the
-- innocent ones are soon told from the one among them that isn't.
local function size_of(claim)
  if suspicion_of(claim).alone then return 1 end
  return math.max(1, math.ceil(worker_slots / group_shrinks ^ (claims_of(claim) - 1)))
end

-- The suspects that were given count once it is known whether there was only one.
local function count_group()
  local is_alone = #group == 1 and not tainted
  for _, claim in ipairs(group) do
    local known = suspicion_of(claim)
    patience = math.max(patience, claims_of(claim) - suspect_from)
    known.waits, known.alone = 0, false
    if is_alone then
      claim.claims = claim.claims + 1
      known.alone = true
      write_suspicion(claim)
    else
      count_grouped(claim)
    end
    write_claim(claim)
  end
end

-- Somebody has to become a worker that holds nothing.
local function wait_for_quiet(claim)
  if quiet or waits_for_none then return end
  local on_duty = duty()
  if on_duty and on_duty ~= worker then return end
  redis.call('SET', key.duty, worker .. '\n' .. claim.job, 'PX', lease)
  quiet, patience = true, suspicion_of(claim).waits
end

-- A job whose claims keep ending without an outcome may be what ends the workers: it is given to
-- one that holds nothing but others like it.
local function may_be_given(claim, is_suspect)
  if is_suspect and (holding > 0 or #jobs > #group) then
    wait_for_quiet(claim)
    return false
  end
  if is_suspect and #group < size_of(claim) or not is_suspect and #group == 0 then return true end
  left_to_others = left_to_others + 1
  return false
end

-- The claims of a page are read when the first one is needed: of what is parked none is.
local fetched_page

local function fetch_claims_from(page, place)
  if fetched_page == page then return end
  fetched_page = page
  local members = {}
  for i = place, #page, 2 do members[#members + 1] = page[i] end
  fetch_claims(members)
  fetch_suspicions(members)
end

-- Answers whether the job has left the part of the queue that is in line.
local function look_at(page, place)
  local job, virtual = page[place], page[place + 1]
  local organization = organization_of(job)
  if must_wait(organization) or not slot_is_free(organization)
    or has_rates and not start_is_due(organization) then
    park(job, organization, virtual)
    return true
  end
  fetch_claims_from(page, place)
  local claim = read_claim(job)
  local is_suspect = claims_of(claim) >= suspect_from
  if not may_be_given(claim, is_suspect) then
    -- In order, whoever stands behind it waits with it.
    if in_order(organization) then running[organization] = math.huge end
    return false
  end
  local payload = payload_of(page, place)
  if payload == nil or payload and not fits(length(payload)) then
    full = true
    return false
  end
  if not payload and redis.call('ZSCORE', key.accepted, job) then
    payload = '' -- gone, or a foreign value that is no string: somebody has to tell of it
  elseif not payload then -- nobody has ever accepted it
    remove_job(claim)
    freed[organization] = true -- it may have been brought back in line for a slot
    count('dropped')
    return true
  end
  if is_suspect then group_size = math.min(group_size, size_of(claim)) end
  give(claim, virtual, payload, is_suspect)
  if profile_of(organization).breaker == 'trying' then set_breaker(organization, 'trying', job) end
  return true
end

local function enough()
  return full or #jobs >= most or #group >= group_size or looks >= most_looks
end

-- The next one that waits for it waits longer, whichever worker that is: in the end long enough for
-- any handler.
local function give_up_waiting_for(suspect)
  local claim = read_claim(suspect)
  if claim.token ~= '' or claims_of(claim) < suspect_from then return end
  local known = suspicion_of(claim)
  known.waits = known.waits + 1
  write_suspicion(claim)
end

-- Once it holds nothing, who is on duty takes its suspect before all others: there might always be
-- somebody ahead of it in line.
local on_duty, suspect = duty()
if on_duty == worker and holding == 0 and most > 0 then
  redis.call('DEL', key.duty)
  local virtual = redis.call('ZSCORE', key.queue, suspect)
  if virtual and tonumber(virtual) < key.deferred_from then look_at({ suspect, virtual }, 1) end
elseif on_duty == worker and waits_for_none then
  redis.call('DEL', key.duty)
  give_up_waiting_for(suspect)
end

while not enough() do
  write_places()
  local page = redis.call('ZRANGE', key.queue, '-inf', '(' .. key.deferred_from, 'BYSCORE',
    'LIMIT', skipped, looks == 0 and most or looks_at_once, 'WITHSCORES')
  if #page == 0 then break end
  for i = 1, #page, 2 do
    if enough() then break end
    looks = looks + 1
    if not look_at(page, i) then skipped = skipped + 1 end
  end
  write_parked()
end
write_places()
count_group()

-- From now on others run beside the job that was given alone.
local was_alone = key.neighbours(jobs) and ARGV[13] and held_claim(ARGV[13], ARGV[14])
if was_alone and suspicion_of(was_alone).alone then
  count_grouped(was_alone)
  write_claim(was_alone)
end

note_undecided()
for organization in pairs(over_their_rate) do look_when_due(organization, 0) end
raise_system_time(highest)
local in_line = redis.call('ZCOUNT', key.queue, '-inf', '(' .. key.deferred_from)
local more = in_line > skipped - left_to_others or full or #due == most_promoted
if more then wake_one() end

local ends = redis.call('ZRANGE', key.due, '(' .. now, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
local next_due = redis.call('ZRANGE', key.queue, key.deferred_from, '+inf', 'BYSCORE', 'LIMIT', 0, 1,
  'WITHSCORES')
local soonest = math.min(tonumber(next_due[2]) or math.huge, tonumber(breaker[2]) or math.huge,
  tonumber(ends[2]) or math.huge)
if ended == most_ends then soonest = now end -- there may be more of them
local wait = soonest < math.huge and math.max(0, math.ceil(soonest - now)) or -1
local word = #group > 0 and 'suspects' or quiet and 'quiet' or more and 'more' or ''
local result = { now, word, wait, patience }
for _, job in ipairs(jobs) do result[#result + 1] = job end
return finish(result)
