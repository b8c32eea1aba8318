-- enqueue, of organizations that live in another partition by now: in the very step that would have
-- enqueued here, so that nothing slips in behind one that has gone.
--
-- Result: where there is any, a list of 'moved:' and the partition's number, and for the others of the
--   batch 'again': of it nothing is enqueued. From a single queue that all have left, under '*', each has
--   moved home: 'moved:*'.

local function moved_from_here()
  if redis.call('EXISTS', key.moved) == 0 then return nil end
  local names, places, is_any = {}, {}, false
  local first = 6 + 2 * tonumber(ARGV[5])
  for i = first, #ARGV, 4 do
    local organization = organization_of(ARGV[i])
    if not places[organization] then
      names[#names + 1] = organization
      places[organization] = #names
    end
  end
  if #names == 0 then return nil end
  names[#names + 1] = '*'
  local numbers, answers = redis.call('HMGET', key.moved, unpack(names)), {}
  local all_have = numbers[#names] and '*'
  for i = first, #ARGV, 4 do
    local number = numbers[places[organization_of(ARGV[i])]] or all_have
    is_any = is_any or number
    answers[#answers + 1] = number and 'moved:' .. number or 'again'
  end
  return is_any and answers
end

do
  local answers = moved_from_here()
  if answers then return answers end
end

