-- Entry: how a job gets a place in line, and whether it has one.

local function has_place(job)
  local place = place_of(job)
  if place then return place end
  local turn = any_turns() and turn_of(job)
  return turn and turn.waits and '0'
end

-- Accepted jobs that come and go, by organization.
local waiting = {}

-- A job gets its payload and a place in line; answers whether it is counted from now on. One that
-- was here before has lost its payload or its place to somebody's hand: it keeps what it has, and
-- without a place it is due at once. The next claim sees to all else, as it does where a lease is
-- over: so the ingress needs no right to the claims.
local function put_in_line(job, payload, order, next_place, cost)
  redis.call('SETNX', key.job .. job, payload)
  if redis.call('ZADD', key.accepted, 'NX', order, job) == 1 then
    local organization = organization_of(job)
    add(waiting, organization, 1)
    hold(organization, 'waiting', cost_of_payload(#payload))
    places[job] = number(next_place(organization, cost))
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
