-- keep: how far a run over dead letters has come; for whoever goes on with it, and nobody else.
--
-- Arguments: its id, who goes on with it, for how much longer (ms; 0: it has ended), what is known of
--   it (JSON).
-- Result: 'lost' where somebody else goes on with it, or nobody keeps it any more; else 'kept:', and
--   who has asked it to stop.
-- Transition: none of a job's.

local id, hold = ARGV[1], tonumber(ARGV[3])
local found = redis.call('HGET', key.runs, id .. ':hold') or ''
local begun, _, holder = string.match(found, '^(%d+:%d+:)(%d+):(.*)$')
if holder ~= ARGV[2] then return finish('lost') end
local held_until = hold > 0 and now_ms() + hold or 0
redis.call('HSET', key.runs, id, ARGV[4], id .. ':hold', begun .. number(held_until) .. ':' .. holder)
return finish('kept:' .. (redis.call('HGET', key.runs, id .. ':stop') or ''))
