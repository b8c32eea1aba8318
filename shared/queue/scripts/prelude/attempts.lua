-- Attempts: what is known of those that a job has had, for whoever looks at its event.

-- Most jobs have had none that came to nothing, and were delivered once.
local any_histories

-- What such a hash says of a job; '' where nothing.
local function known_in(name, job)
  if any_histories == nil then
    any_histories = redis.call('EXISTS', key.failures, key.redelivered) > 0
  end
  local raw = any_histories and redis.pcall('HGET', name, job)
  return type(raw) == 'string' and raw or ''
end

-- How often the same bytes came again while it waited, when the first time, and when the last (ms).
local function redeliveries_of(job)
  local number_of, first, last = string.match(known_in(key.redelivered, job), '^(%d+):(%d+):(%d+)$')
  return tonumber(number_of) or 0, tonumber(first), tonumber(last)
end

-- A history of it, or '', with these, as its end keeps it.
local function with_redeliveries(job, raw)
  local number_of, first, last = redeliveries_of(job)
  if number_of == 0 then return raw end
  with_seldom()
  return cmsgpack.pack(with_one_more(raw, 'e', last, number_of, math.max(0, last - first), '', '', ''))
end

local function bytes_of_history(job)
  return cost_of_history(known_in(key.failures, job)) + cost_of_history(known_in(key.redelivered, job))
end

-- The mark of an event that is done.
--   tail  what its worker tells of how it was handled, as shared/queue/told.py has it; or '', or one of
--         those in `marks.lua`
--   raw   what came before that, where it isn't the job's own history
local function done_mark(job, tail, raw)
  local mark, ending = 'done:' .. key.in_mark(job), end_told()
  if ending == '' then return mark end
  if tail ~= '' then mark = mark .. ending .. tail end
  raw = raw or with_redeliveries(job, known_in(key.failures, job))
  if raw == '' then return mark end
  -- Marks stay for long: with histories an organization whose events all fail once would be refused by those
  -- of events that are done. So there are none for a day.
  local full_at = redis.pcall('HGET', key.flows, nearly_full(organization_of(job)))
  if type(full_at) == 'string' and now_ms() <= (tonumber(full_at) or 0) + 86400000 then return mark end
  with_seldom()
  local history = short_history(raw)
  hold(organization_of(job), 'marks', cost_of_history(history))
  return history == '' and mark or mark .. '\n' .. history
end

-- Seldom: made only where an attempt has come to nothing, or a dead event lives again.

-- A job's history, its field of the hash `failures` and the `history` of its dead letter, is MessagePack:
-- {entries, texts, last}. An entry, of which the oldest is the first, is {kind, when (ms), number,
-- milliseconds that it took, worker, handler, error}; the last three are places among the texts, since
-- most say the same, and 0 is none. `last` is what the last attempt says at length, as its worker has
-- compressed it. The kinds:
--   f  an attempt that failed, b one that has blocked its worker's loop, a one that asked for another,
--   x  one that gave the event up
--   l  a claim whose worker was not heard of any more: of that there is the beginning of a token
--   d  the event died, for the reason that stands as its error
--   r  it was replayed, by the worker that is named; or s revived by a redelivery
--   e  the same bytes were delivered again, or c others under its id: one entry, whose number says how often,
--   when the last time, and how long (ms) after the first
-- Nothing is decided by any of it. What comes again while a job waits is counted in the hash `redelivered`,
-- as "number:first:last" (ms), and is an entry from its end on. An older version writes, and reads, {number,
-- when, error, traceback}.
local most_attempts, most_others, most_bytes_of_texts = 10, 5, 560

local function no_history()
  return { {}, {}, '' }
end

-- The beginning of a text, without half a character at its end: who reads it would take none of it.
local function beginning_of(text, most)
  if #text <= most then return text end
  return (string.gsub(string.sub(text, 1, most), '[\192-\255][\128-\191]*$', ''))
end

local function read_history(raw)
  local is_read, history = pcall(cmsgpack.unpack, raw)
  if not is_read or type(history) ~= 'table' then return no_history() end
  local number, when, said = unpack(history)
  if type(number) == 'number' and type(said) == 'string' then
    return { { { 'f', when, number, 0, 0, 0, 1 } }, { beginning_of(said, 200) }, '' }
  end
  return history
end

local is_again = { e = true, c = true }
local is_other = { d = true, r = true, s = true, e = true, c = true }

-- Of attempts, and of what else happened, the newest; mostly there are attempts alone.
local function newest_of(entries)
  local all_others = 0
  for _, entry in ipairs(entries) do
    if is_other[entry[1]] then all_others = all_others + 1 end
  end
  if all_others == 0 then
    table.remove(entries, 1)
    return entries
  end
  local kept, attempts, others = {}, 0, 0
  for i = #entries, 1, -1 do
    local is_attempt = not is_other[entries[i][1]]
    if is_attempt then attempts = attempts + 1 else others = others + 1 end
    if is_attempt and attempts <= most_attempts or not is_attempt and others <= most_others then
      table.insert(kept, 1, entries[i])
    end
  end
  return kept
end

local function place_of_text(texts, text)
  if text == '' then return 0 end
  for place, known in ipairs(texts) do
    if known == text then return place end
  end
  texts[#texts + 1] = text
  return #texts
end

-- The texts that entries name. The newest come first: what there is no room for then is left out.
local function texts_of(entries, texts)
  local named, places, bytes = {}, {}, 0
  for i = #entries, 1, -1 do
    for field = 5, 7 do
      local text = texts[entries[i][field]] or ''
      if text ~= '' and not places[text] and bytes + #text <= most_bytes_of_texts then
        bytes = bytes + #text
        named[#named + 1] = text
        places[text] = #named
      end
      entries[i][field] = places[text] or 0
    end
  end
  return named
end

local function with_entry(history, kind, when, number_of_it, took, ...)
  local entries, texts = history[1], history[2]
  for i, before in ipairs(is_again[kind] and entries or {}) do
    if before[1] == kind then
      number_of_it, took = number_of_it + before[3], math.max(0, when - before[2] + before[4])
      table.remove(entries, i)
      break
    end
  end
  local known, last = #texts, entries[#entries]
  if last and #last ~= 7 then error('expected an entry of seven fields, got ' .. #last) end
  local entry = { kind, when, number_of_it, took }
  for i, text in ipairs({ ... }) do entry[4 + i] = place_of_text(texts, text) end
  entries[#entries + 1] = entry
  if #entries > most_attempts then entries = newest_of(entries) end
  -- An attempt that says what others have said is what most are.
  if #texts > known then texts = texts_of(entries, texts) end
  return { entries, texts, history[3] }
end

-- Where somebody's hand has changed it, it begins anew.
local function with_one_more(raw, ...)
  local is_whole, history = pcall(with_entry, read_history(raw), ...)
  return is_whole and history or with_entry(no_history(), ...)
end

-- The same without what the last attempt said at length; '' of what somebody's hand has made.
local function short_history(raw)
  local history = read_history(raw)
  history[3] = ''
  local short = cmsgpack.pack(history)
  return cost_of_history(short) > 0 and short or ''
end

local function write_history(job, before, history)
  local raw = cmsgpack.pack(history)
  any_histories = true
  if type(redis.pcall('HSET', key.failures, job, raw)) ~= 'number' then return end -- somebody's hand
  hold(organization_of(job), 'waiting', cost_of_history(raw) - cost_of_history(before))
end

--   told  {kind, milliseconds, worker, handler, error, what it says at length}
local function with_attempt(raw, attempts, told)
  local history = with_one_more(raw, told[1], now_ms(), attempts, unpack(told, 2, 5))
  history[3] = told[6]
  return history
end

local function note_attempt(claim, told)
  local before = known_in(key.failures, claim.job)
  write_history(claim.job, before, with_attempt(before, claim.attempts, told))
end

local function note_lost(claim)
  local before = known_in(key.failures, claim.job)
  write_history(claim.job, before,
    with_one_more(before, 'l', now_ms(), claim.attempts + 1, 0, string.sub(claim.token, 1, 6), '', ''))
end

-- What its dead letter knows of an event's past, with its death and its replay.
local function history_of_letter(job)
  local raw, reason, died_at, attempts, by_hand, replayed_at = unpack(redis.call('HMGET',
    key.dead_letter .. job, 'history', 'reason', 'died_at', 'attempts', 'by_hand', 'replayed_at'))
  local history = with_one_more(raw, 'd', tonumber(died_at) or 0, tonumber(attempts) or 0, 0, '', '',
    reason or '')
  history[3] = ''
  if not by_hand then return history end
  local who = by_hand ~= '1' and by_hand or ''
  return with_entry(history, 'r', tonumber(replayed_at) or now_ms(), 0, 0, who, '', '')
end

-- A dead event lives again, by a job that may be another.
local function take_history(job, from)
  local history = history_of_letter(from)
  if redis.call('HEXISTS', key.dead_letter .. from, 'by_hand') == 0 then
    history = with_entry(history, 's', now_ms(), 0, 0, '', '', '')
  end
  write_history(job, known_in(key.failures, job), history)
end
