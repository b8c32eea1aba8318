-- clear: what has arrived in another partition goes from here; nobody is told, who may wait for it.
--
-- Arguments: organization, the mover's token (hex), then for each: 'job', 'letter', or what a value's name
--   begins with ('event', 'revivals', 'state'); and the job, or the rest of the name.
-- Result: 'cleared', or 'lost' where the organization is another mover's by now.
-- Transition: any → absent, here.

local organization = ARGV[1]
local way = redis.call('HGET', key.moving, organization)
local last_order = tonumber(string.match(way or '', '^out:%d+:[01]:(.*)$'))
if not last_order or not is_the_movers(organization, ARGV[2]) then return finish('lost') end

local prefixes = { event = key.event, revivals = key.revivals, state = key.state }

local function leave_no_turn(job)
  local turn = any_turns() and turn_of(job)
  if not turn then return end
  if turn.waits then add(in_turn, organization, -1) end
  if is_latest(job, turn) then redis.call('HDEL', key.latest, turn.kind) end
  for _, name in ipairs({ turn.key, turn.state }) do
    if name ~= '' then redis.call('ZREM', name, job) end
  end
  write_turn(job, false)
  redis.call('DEL', key.superseded .. job)
end

local function leave(job)
  local order = redis.call('ZSCORE', key.accepted, job)
  if order and tonumber(order) > last_order then return end -- it came later, and is nowhere else
  leave_no_turn(job)
  local claim = read_claim(job)
  if claim.token ~= '' then add(slots, organization, -1) end
  claim.token = ''
  remove_job(claim)
  -- What bears no tag has the same name there, which may be in this very Redis.
  if string.sub(key.in_mark(job), 1, 2) == '{}' then
    names_to_delete[#names_to_delete - 1] = key.superseded .. job -- which is gone already
    names_to_delete[#names_to_delete] = key.superseded .. job
  end
end

for i = 3, #ARGV, 2 do
  local kind, name = ARGV[i], ARGV[i + 1]
  if kind == 'job' then
    leave(name)
  elseif kind == 'letter' then
    if not remove_record(organization, name) then redis.call('ZREM', key.dead .. organization, name) end
  else
    redis.call('DEL', prefixes[kind] .. organization .. ':' .. name)
  end
end
return finish('cleared')
