-- begin: a run over dead letters begins once, or goes on once, where nobody goes on with it.
--
-- Arguments: its id, how often it has begun so far as its reader knows, who goes on with it, for how
--   long (ms) unless `keep` says so again, what is known of it (JSON), how many runs are kept, and
--   for how long (ms).
-- Result: 'begun'; 'known' where it has begun meanwhile, 'held' while somebody goes on with it, or
--   'absent' where it isn't kept any more.
-- Transition: none of a job's. Of each run the hash `runs` has what is known of it, under its id, and
--   under "id:hold" how often it has begun, when first, until when it is held, and by whom: so two
--   presses, of two consoles perhaps, are one run.

local id, seen, holder, hold = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local now = now_ms()

-- How often it has begun, when, and until when it is held; nothing where it isn't there.
local function hold_of(run)
  local found = redis.call('HGET', key.runs, run .. ':hold')
  local times, began, held_until = string.match(found or '', '^(%d+):(%d+):(%d+):')
  return times, tonumber(began), tonumber(held_until)
end

-- The oldest go, but none that goes on: nobody could stop it.
local function forget_old(most, kept)
  local ended = {}
  for _, name in ipairs(redis.call('HKEYS', key.runs)) do
    local run = string.match(name, '^(.*):hold$')
    local _, began, held_until = hold_of(run or '')
    if began and run ~= id and held_until <= now then ended[#ended + 1] = { run, began } end
  end
  table.sort(ended, function(one, other) return one[2] > other[2] end)
  for i, each in ipairs(ended) do
    if i >= most or each[2] < now - kept then
      redis.call('HDEL', key.runs, each[1], each[1] .. ':hold', each[1] .. ':stop')
    end
  end
end

local times, began, held_until = hold_of(id)
if (times or '0') ~= seen then return finish(times and 'known' or 'absent') end
if times and held_until > now then return finish('held') end
forget_old(tonumber(ARGV[6]), tonumber(ARGV[7]))
local held = table.concat({ number(seen + 1), number(began or now), number(now + hold), holder }, ':')
redis.call('HDEL', key.runs, id .. ':stop')
redis.call('HSET', key.runs, id, ARGV[5], id .. ':hold', held)
redis.call('PEXPIRE', key.runs, ARGV[7])
return finish('begun')
