-- Moves: an organization on its way from one partition to another.
--
-- The hash `moving` has, where an organization leaves, 'out:partition:1 where it was paused before' and,
-- once it has left, ':order behind which nothing was accepted here'; where it arrives 'in:partition:by how
-- much its virtual times rise on the way'. While either is there, all that there is of it waits. Under
-- 'lock:organization' it has the token of the last mover to have begun and, where it leaves, until when it
-- has the organization to itself (ms).

local lock_field = 'lock:'

-- A mover that was away for too long may have another one behind it, and changes nothing any more.
local function is_the_movers(organization, token)
  local holder = redis.call('HGET', key.moving, lock_field .. organization)
  return holder and string.match(holder, '^%x+') == token
end

-- Where it arrives, what a mover has told stands beside its token, by number. A server that has taken the
-- place of another, or has been started anew on its file, may lack the last of it.
local function has_all(organization, token, told)
  return redis.call('HGET', key.moving, lock_field .. organization) == token .. ':' .. told
end

local function note_told(organization, token, told)
  redis.call('HSET', key.moving, lock_field .. organization, token .. ':' .. number(told))
end

-- How many of its events workers hold. A slot that is kept for a retry nobody holds.
local function leased_of(organization, first_kept)
  local leased = running_of(organization)
  for i = first_kept, #ARGV do
    if keeps_slot(read_claim(ARGV[i])) then leased = leased - 1 end
  end
  return leased
end
