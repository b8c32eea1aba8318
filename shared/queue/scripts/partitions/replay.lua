-- replay, of an organization that is on its way from here or to here, or has gone: nothing, since half
-- of what is its own may be elsewhere.
--
-- Result: 'moved'.

do
  local organization = organization_of(ARGV[1])
  if redis.call('HEXISTS', key.moving, organization) == 1
    or redis.call('HEXISTS', key.moved, organization) == 1 then
    return 'moved'
  end
end

