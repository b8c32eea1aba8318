-- adopt, of an organization that is on its way from here or to here, or has gone: nothing. arq asks for no
-- pause, and what it would run here is run where it goes to, too.
--
-- Result: 'gone'.

do
  local organization = organization_of(ARGV[1])
  if redis.call('HEXISTS', key.moving, organization) == 1
    or redis.call('HEXISTS', key.moved, organization) == 1 then
    return 'gone'
  end
end
