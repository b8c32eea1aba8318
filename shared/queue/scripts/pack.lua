-- pack: what another partition has to know of jobs that are to go there.
--
-- Arguments: bytes of payload at the most, but for the first one; then jobs.
-- Result: for each, as far as there is room, {} where it has ended, else a list: the job as marks name
--   it, payload, order, place, claim, arq's count of tries, what is known of it as throttled, as failed, as
--   unhandled and as a suspect, what turns it is in, its order in that of its key and in that of a value, 1
--   where it is the latest of its kind that waits, and the ids of the events that it stands for.
-- Transition: none.

local most_bytes, bytes, results = tonumber(ARGV[1]), 0, {}

local function in_turns(job)
  local turn = any_turns() and turn_of(job)
  if not turn then return false, false, 0, {} end
  return turn.key ~= '' and redis.call('ZSCORE', turn.key, job),
    turn.state ~= '' and redis.call('ZSCORE', turn.state, job), is_latest(job, turn) and 1 or 0,
    redis.call('LRANGE', key.superseded .. job, 0, -1)
end

local function packed(job)
  local order = redis.call('ZSCORE', key.accepted, job)
  if not order then return {} end
  local payload = redis.pcall('GET', key.job .. job) -- gone, where somebody's hand has made it no text
  local record = {
    key.in_mark(job), type(payload) == 'string' and payload, order, place_of(job),
    redis.call('HGET', key.claims, job), redis.call('GET', key.arq_retry .. job),
  }
  for i, name in ipairs({ key.throttled, key.failures, key.unhandled, key.suspects, key.turns }) do
    record[6 + i] = redis.call('HGET', name, job)
  end
  record[8] = with_redeliveries(job, known_in(key.failures, job))
  record[12], record[13], record[14], record[15] = in_turns(job)
  return record
end

for i = 2, #ARGV do
  bytes = bytes + length_of('STRLEN', key.job .. ARGV[i])
  if i > 2 and bytes > most_bytes then break end
  results[#results + 1] = packed(ARGV[i])
end
return finish(results)
