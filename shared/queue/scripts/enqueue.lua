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

-- A payload that nobody has accepted may be other bytes than these, and who may not read it can't
-- tell. So a worker gets it, which handles the same bytes, and buries others. Until then it stays
-- unaccepted, and nothing is promised of the delivery.
local function let_a_worker_judge(job)
  if not has_place(job) then places[job] = number(now_ms()) end
  count('name_taken')
  return 'name_taken'
end

-- By a name of its own, since who may only enqueue needn't read what handlers have said. An earlier
-- ingress's rights don't reach to it.
local function note_redelivery(job)
  local said, now = redis.pcall('HGET', key.redelivered, job), number(now_ms())
  local number_of, first = string.match(type(said) == 'string' and said or '', '^(%d+):(%d+):%d+$')
  said = (number_of or 0) + 1 .. ':' .. (first or now) .. ':' .. now
  local is_new = redis.pcall('HSET', key.redelivered, job, said)
  if is_new == 1 then hold(organization_of(job), 'waiting', cost_of_history(said)) end
end

local function accept(job, payload, received_at, cost)
  local organization = organization_of(job)
  local is_there = redis.call('EXISTS', key.job .. job) == 1
  if is_there and not redis.call('ZSCORE', key.accepted, job) then
    return let_a_worker_judge(job)
  end
  -- A payload without its place (an operator deleted one of the two) would never run.
  if is_there and has_place(job) then
    -- A write: WAIT and WAITAOF after a script that wrote nothing answer at once.
    count('known')
    note_redelivery(job)
    return 'known'
  end
  local more_bytes = cost_of_payload(#payload)
  local refusal = refused(organization, more_bytes)
  if refusal then return refusal end
  -- Else it counts already.
  if put_in_line(job, payload, next_order(organization, received_at), next_virtual_time, cost) then
    count_accepted(organization, more_bytes)
  end
  count('accepted')
  return 'new'
end

local results, news = {}, false
for i = first, #ARGV, 4 do
  local result = accept(ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]))
  results[#results + 1] = result
  news = news or result == 'new'
end
write_flows()
if news then wake_one() end
return finish(results)
