-- renumber, while any organization is on its way from here or to here: not now, since its virtual times
-- stand in two partitions.
--
-- Result: 'waits'.

if redis.call('EXISTS', key.moving) == 1 then return 'waits' end

