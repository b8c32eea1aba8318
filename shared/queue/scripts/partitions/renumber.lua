-- renumber, while any organization is on its way from here or to here: not now, since its virtual times
-- stand in two partitions. Who has a mover that did no more than lock it isn't on its way.
--
-- Result: 'waits'.

for _, field in ipairs(redis.call('HKEYS', key.moving)) do
  if string.sub(field, 1, 5) ~= 'lock:' then return 'waits' end
end
