-- profile: what the endpoints file says of organizations becomes known to the other scripts.
--
-- Arguments: for each organization: organization, cap ('' is the default one), weight, and of its
--   rate the ms between two starts ('' without one) and the credit (ms).
-- Result: 'known'.
-- Transition: parked → queued where a cap or a rate was raised.

for i = 1, #ARGV, 5 do
  local organization, interval = ARGV[i], ARGV[i + 3]
  redis.call('HSET', key.organizations, organization, ARGV[i + 1] .. ':' .. ARGV[i + 2])
  if interval ~= '' then
    rates_there = true
    with_seldom()
    rates_changed[organization] = interval .. ':' .. ARGV[i + 4]
  elseif any_rates() then
    rates_changed[organization], rates_changed[next_field .. organization] = false, false
  end
  freed[organization] = true
end
write_fields(key.rates, rates_changed) -- by which those that are freed may start
rates_changed = {}
return finish('known')
