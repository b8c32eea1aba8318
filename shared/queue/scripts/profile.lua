-- profile: what the endpoints file says of organizations becomes known to the other scripts.
--
-- Arguments: for each organization: organization, cap ('' is the default one), weight.
-- Result: 'known'.
-- Transition: parked → queued where a cap was raised.

for i = 1, #ARGV, 3 do
  local organization = ARGV[i]
  redis.call('HSET', key.organizations, organization, ARGV[i + 1] .. ':' .. ARGV[i + 2])
  freed[organization] = true
end
return finish('known')
