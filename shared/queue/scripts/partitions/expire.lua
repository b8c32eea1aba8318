-- expire, of an organization that is on its way from here or to here, or has gone: nothing, since half of
-- what is its own may be elsewhere.
--
-- Result: 0.

if redis.call('HEXISTS', key.moving, ARGV[1]) == 1 or redis.call('HEXISTS', key.moved, ARGV[1]) == 1 then
  return 0
end

