-- restore: accepted jobs that would never run are due at once: somebody's hand has taken their place.
--
-- Arguments: cursor ('0' at first), about how many jobs to look at, lease (ms).
-- Result: {the next cursor ('0' at the end), then the jobs that were put back}.
-- Transition: nothing → deferred, due now; or, since somebody may hold the job still, in a lease.

local now, lease = now_ms(), tonumber(ARGV[3])
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

local cursor, found = unpack(redis.call('ZSCAN', key.accepted, ARGV[1], 'COUNT', ARGV[2]))
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
