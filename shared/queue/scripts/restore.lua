-- restore: accepted jobs that would never run are due at once: somebody's hand has taken their place.
--
-- Arguments: about how many jobs to look at, lease (ms).
-- Result: {the next cursor ('0' at the end), then the jobs that were put back}. The cursor stays
--   here until the end: whoever looks next goes on there, whatever has become of the one before.
-- Transition: nothing → deferred, due now; or, since somebody may hold the job still, in a lease.

local now, lease = now_ms(), tonumber(ARGV[2])
local longest_delay = 366 * 86400 * 1000 -- ms: more than worker/outcomes.py lets a handler ask for

-- Nobody defers what was never claimed, nor anything for so long.
local function is_out_of_reach(job, place)
  place = tonumber(place)
  if place < key.deferred_from or place <= now then return false end
  return place > now + longest_delay or not raw_claim(job)
end

local function put_back(job)
  places[job] = number(read_claim(job).token == '' and now or now + lease)
end

local stopped_at = string.match(redis.call('GET', key.looked_until) or '', '^%d+$') or '0'
local cursor, found = unpack(redis.call('ZSCAN', key.accepted, stopped_at, 'COUNT', ARGV[1]))
if cursor == '0' then
  redis.call('DEL', key.looked_until)
else
  redis.call('SET', key.looked_until, cursor)
end
local result = { cursor }
for i = 1, #found, 2 do
  local job = found[i]
  local place = has_place(job)
  if not place or is_out_of_reach(job, place) then
    put_back(job)
    count('restored')
    result[#result + 1] = job
  end
end
if #result > 1 then wake_one() end
return finish(result)
