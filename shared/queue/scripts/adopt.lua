-- adopt: a stock arq worker that picked a job from the queue takes its claim.
--
-- Arguments: job, token, lease (ms).
-- Result: 'gone' when it has no payload any more, else {attempts with an outcome, claims
--   without one before this, Redis's time (ms), 1 where the last of these was alone in its worker,
--   how often its handler has blocked its worker's loop}.
-- Transition: queued or an expired lease → leased. Whoever held it before is `lost` from now on.

local job, token, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
if redis.call('EXISTS', key.job .. job) == 0 then return finish('gone') end

local claim, first = read_claim(job)
local now = now_ms()
if first then adopt_foreign(job, now) end
local known = suspicion_of(claim)
local result = { claim.attempts, claims_of(claim), now, known.alone and 1 or 0, known.blocked }
local score = redis.call('ZSCORE', key.queue, job) or '0'
if tonumber(score) < key.deferred_from then
  claim.virtual = score
  raise_system_time(tonumber(score))
end
decide(claim) -- its order is arq's
set_token(claim, token)
if any_rates() then take_start(claim.organization) end -- arq asks for none, but each is given back
claim.claims = claim.claims + 1
write_claim(claim)
redis.call('ZREM', key.parked .. claim.organization, job) -- where a claim was faster to look at it
redis.call('ZADD', key.queue, number(now + lease), job)
return finish(result)
