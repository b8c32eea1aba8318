-- enqueue: a batch of deliveries becomes waiting jobs; a known one is counted again.
--
-- Arguments: backlog limit of all, backlog limit of one organization (0: none); bytes that one
--   organization may hold (0: no limit), and that any may hold while Redis is nearly full (or '');
--   how many organizations have a limit of bytes of their own, and for each: organization, bytes
--   (0: no limit); then for each delivery: job, payload, received-at (ms), cost (1 / weight).
-- Result: a list of 'new', 'known', 'name_taken', 'backlog_full', 'organization_backlog_full',
--   'organization_bytes_full'.
--   'name_taken': a payload that nobody has accepted stands under the delivery's name.
-- Transition: nothing → queued. A known job stays where it is.

local limit, organization_limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local bytes_limit, bytes_at_most = tonumber(ARGV[3]), tonumber(ARGV[4]) or math.huge
local first = 6 + 2 * tonumber(ARGV[5])
local system = system_time()
local backlog = redis.call('ZCARD', key.accepted)
local last, last_order, depth, bytes_limits, bytes = {}, {}, {}, {}, {}

for i = 6, first - 1, 2 do bytes_limits[ARGV[i]] = tonumber(ARGV[i + 1]) end

local function bytes_limit_of(organization)
  local limit = bytes_limits[organization] or bytes_limit
  return math.min(limit > 0 and limit or math.huge, bytes_at_most)
end

-- Looked up once an organization; what this batch adds, it counts itself.
local function bytes_of(organization)
  if bytes[organization] then return bytes[organization] end
  local sum = 0
  for _, kind in ipairs(redis.call('HMGET', key.bytes, organization .. ':waiting',
    organization .. ':dead', organization .. ':marks', organization .. ':state')) do
    sum = sum + math.max(0, tonumber(kind) or 0)
  end
  bytes[organization] = sum
  return sum
end

local function bytes_are_full(organization, more)
  local most = bytes_limit_of(organization)
  return most < math.huge and bytes_of(organization) + more > most
end

local function refused(organization, more_bytes)
  if limit > 0 and backlog >= limit then return 'backlog_full' end
  if organization_limit > 0 then
    depth[organization] = depth[organization]
      or tonumber(redis.call('HGET', key.waiting, organization)) or 0
    if depth[organization] >= organization_limit then return 'organization_backlog_full' end
  end
  if bytes_are_full(organization, more_bytes) then
    count('bytes_full') -- `recount` looks whether that is true still
    return 'organization_bytes_full'
  end
  return nil
end

local order_field = 'order:'

local function fetch_flow(organization)
  if last[organization] then return end
  local virtual, order = unpack(redis.call('HMGET', key.flows, organization,
    order_field .. organization))
  last[organization], last_order[organization] = as_virtual_time(virtual), tonumber(order) or 0
end

-- Start-time fair queueing: behind its own flow, never behind another's, never in the past.
local function next_virtual_time(organization, cost)
  fetch_flow(organization)
  last[organization] = math.min(math.max(system, last[organization]) + cost, last_time)
  return last[organization]
end

-- Of one organization it rises strictly: several come in one millisecond, and the clock of another
-- ingress may be behind.
local steps = 64 -- in a millisecond
local parts_of_it = {}

-- The whole number and its part apart: a fraction of so many digits takes as long to write as all else.
local function order_text(order)
  local whole = math.floor(order)
  local part = (order - whole) * steps
  if not parts_of_it[part] then parts_of_it[part] = string.sub(string.format('%.6f', part / steps), 2) end
  return string.format('%d', whole) .. parts_of_it[part]
end

local function next_order(organization, received_at)
  fetch_flow(organization)
  local at, next_step = tonumber(received_at), last_order[organization] + 1 / steps
  if at >= next_step then
    last_order[organization] = at
    return received_at
  end
  last_order[organization] = next_step
  return order_text(next_step)
end

-- Jobs of which nothing is known come at once: most batches are all of that kind.
local absent, payloads, receipts = {}, {}, {}

local function look_for_absent()
  local jobs, names = {}, {}
  for i = first, #ARGV, 4 do
    jobs[#jobs + 1] = ARGV[i]
    names[#names + 1] = key.job .. ARGV[i]
  end
  if #jobs == 0 or #jobs > most_arguments then return end
  if redis.call('EXISTS', unpack(names)) > 0 then return end
  for i, score in ipairs(redis.call('ZMSCORE', key.accepted, unpack(jobs))) do
    absent[jobs[i]] = not score
  end
end

-- A payload that nobody has accepted may be other bytes than these, and who may not read it can't
-- tell. So a worker gets it, which handles the same bytes, and buries others. Until then it stays
-- unaccepted, and nothing is promised of the delivery.
local function let_a_worker_judge(job)
  if not has_place(job) then places[job] = number(now_ms()) end
  count('name_taken')
  return 'name_taken'
end

-- The same as `put_in_line`, for a job of which nothing is known.
local function put_new_in_line(job, payload, received_at, more_bytes, cost)
  local organization = organization_of(job)
  absent[job] = nil -- it may come twice in a batch
  payloads[#payloads + 1] = key.job .. job
  payloads[#payloads + 1] = payload
  receipts[#receipts + 1] = next_order(organization, received_at)
  receipts[#receipts + 1] = job
  add(waiting, organization, 1)
  hold(organization, 'waiting', more_bytes)
  places[job] = number(next_virtual_time(organization, cost))
end

local function write_new()
  if #payloads == 0 then return end
  redis.call('MSETNX', unpack(payloads)) -- none is there: what may only add can't overwrite
  call_for_all('ZADD', key.accepted, receipts)
  payloads, receipts = {}, {}
end

local function accept(job, payload, received_at, cost)
  local organization, is_absent = organization_of(job), absent[job]
  if not is_absent then
    write_new()
    local is_there = redis.call('EXISTS', key.job .. job) == 1
    if is_there and not redis.call('ZSCORE', key.accepted, job) then
      return let_a_worker_judge(job)
    end
    -- A payload without its place (an operator deleted one of the two) would never run.
    if is_there and has_place(job) then
      -- A write: WAIT and WAITAOF after a script that wrote nothing answer at once.
      count('known')
      return 'known'
    end
  end
  local more_bytes = cost_of_payload(#payload)
  local refusal = refused(organization, more_bytes)
  if refusal then return refusal end
  if is_absent then
    put_new_in_line(job, payload, received_at, more_bytes, cost)
  elseif not put_in_line(job, payload, next_order(organization, received_at), next_virtual_time, cost) then
    more_bytes = nil -- it counts already
  end
  if more_bytes then
    if depth[organization] then depth[organization] = depth[organization] + 1 end
    if bytes[organization] then bytes[organization] = bytes[organization] + more_bytes end
    backlog = backlog + 1
  end
  count('accepted')
  return 'new'
end

look_for_absent()
local results, news = {}, false
for i = first, #ARGV, 4 do
  local result = accept(ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]))
  results[#results + 1] = result
  news = news or result == 'new'
end
write_new()
for organization, virtual in pairs(last) do
  redis.call('HSET', key.flows, organization, number(virtual), order_field .. organization,
    order_text(last_order[organization]))
end
if news then wake_one() end
return finish(results)
