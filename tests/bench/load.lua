-- wrk's script: sends the requests of a file, one after the other, and prints what came of it
-- as one line of JSON.
--
-- Arguments: path, bytes of each request, place of the first one to send.

local requests, place = {}, 0

function init(arguments)
  local file = assert(io.open(arguments[1], 'rb'))
  local size = tonumber(arguments[2])
  file:seek('set', tonumber(arguments[3]) * size)
  while true do
    local request = file:read(size)
    if not request or #request < size then break end
    requests[#requests + 1] = request
  end
  file:close()
end

function request()
  place = place % #requests + 1
  return requests[place]
end

function done(summary, latency)
  local errors = summary.errors
  local lost = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    '{"answered":%d,"refused":%d,"seconds":%.6f,"p50":%.6f,"p99":%.6f}\n',
    summary.requests + lost, errors.status + lost, summary.duration / 1e6,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
