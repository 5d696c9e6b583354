-- A call holds items, each about one entity: the keys of all, and one argument, packed: for each item how many keys it has,
-- and its arguments. (As arguments of the call each would become an object of the server and a text, also the numbers.) An
-- item finds its own as KEYS and ARGV; the verb behind this is run for one after the other.
-- KEYS 1 the entity (hash): `row` packed; `json`, `shape`, `error`, `paused` of its state; parcels by number, delayed ones
--        as `d` + number
--      2 delayed (zset)  3 wake of the kind (zset); where ids or names are touched: 4 seen (zset)  5 names of the kind (zset)
-- ARGV 1 the entity's key
-- A parcel holds messages that came together: how many, in two bytes; and each behind its length, in four.
local all_keys, items = KEYS, cmsgpack.unpack(ARGV[1])
local KEYS, ARGV = {}, nil
local t = redis.call('TIME')
local now_us = t[1] * 1000000 + t[2]
local now = math.floor(now_us / 1000)
local LONGEST = 3600000
-- In `wake` the locked ones stand lower by this, so that `due` can tell them from the others.
local LOCKED = 4503599627370496
-- What stands beside an id in `seen`: until when it is remembered, times this, and where its parcel is: its number modulo
-- PLACES and 1, or 0 for any place. `locate` looks there.
local SEEN, PLACES = 1024, 1023

-- Lua writes numbers with 14 digits when it concatenates: 1.7900000000001e+15. Never let it. Numbers that are arguments of
-- commands are written in full.
local function int(n) return string.format('%d', n) end

-- The row, from load to flush. Locals, because a table of them was a third of what a call cost.
local fence, nonce, deadline, commit, from, count, deliveries, charged, limit, head, tail, parked, since, why, till, paused,
  known, delayed, delayed_at, version, failed, seen_until, queued, skip
-- `head` to `tail`: the numbers of the queue's parcels; `queued`: how many messages they hold without the first `skip`,
-- which are settled; `from`: the parcel where what was handed out begins; `count`: how many messages that was.
-- How it is stored, none as 0 or an empty text; of moments 7 bytes, because a number may have 53 bits.
local ROW = '<I7sI7si7I4I4I4I4i7i7I7I7sI7I1I1I7I7I7I1I7I7I2'
-- As it was found.
local was_known, was_wake

-- What will be written, in this order, after everything was decided. Nothing below calls a write before flush. The lists
-- are those of the item before, written over; how long they are stands beside them.
local drop, put, park, unpark, seen, extra = {}, {}, {}, {}, {}, {}
local drops, puts, parks, unparks, sees, extras
-- The parcels this item has entered, by number; the ids it remembers, and until when at most.
local fresh, remembered, farthest

local function erase(field)
  drops = drops + 1
  drop[drops] = field
end

local function save(field, value)
  put[puts + 1], put[puts + 2] = field, value
  puts = puts + 2
end

local function call_later(...)
  extras = extras + 1
  extra[extras] = {...}
end

-- Where it stands in `wake`: the moment when `due` reports it.
local function wake()
  local at
  if paused == 1 then return nil elseif tail > head then at = since else at = delayed_at end
  if not at then return nil end
  if till and till > at then at = till end
  if not deadline then return at end
  return (deadline > at and deadline or at) - LOCKED
end

local function reset()
  drops, puts, parks, unparks, sees, extras, farthest = 0, 0, 0, 0, 0, 0, 0
  fresh, remembered = nil, nil
  fence, nonce, deadline, commit, from, count, deliveries, charged, limit = now, '', nil, '', 0, 0, 0, 0, 4294967295
  head, tail, parked, since, why, till, paused, known, delayed, delayed_at = 1, 1, 0, now, '', nil, 0, 1, 0, nil
  version, failed, seen_until, queued, skip, was_known, was_wake = 0, 0, 0, 0, 0, nil, nil
end

-- Portions, because a Lua function takes at most 8000 arguments.
local function read(fields, n)
  if n <= 1000 then return redis.call('HMGET', KEYS[1], unpack(fields, 1, n)) end
  local found = {}
  for i = 1, n, 1000 do
    local part = redis.call('HMGET', KEYS[1], unpack(fields, i, math.min(i + 999, n)))
    for j = 1, #part do found[i + j - 1] = part[j] end
  end
  return found
end

-- Whether there is a row. One string, read and written whole: as fields of its own it was half of what a call cost.
local function load()
  local packed = redis.call('HGET', KEYS[1], 'row')
  if not packed then return false end
  fence, nonce, deadline, commit, from, count, deliveries, charged, limit, head, tail, parked, since, why, till, paused,
    known, delayed, delayed_at, version, failed, seen_until, queued, skip = struct.unpack(ROW, packed)
  if deadline == 0 then deadline = nil end
  if till == 0 then till = nil end
  if delayed_at == 0 then delayed_at = nil end
  was_known, was_wake = known, wake()
  return true
end

local function is_mine(other) return deadline and nonce == other end
local function is_leased() return deadline and now < deadline and deadline <= now + LONGEST end
local function is_ready() return paused == 0 and not (till and now < till) and tail > head end

-- How many messages a parcel holds.
local function size(parcel) return (struct.unpack('<I2', parcel)) end

-- Where the message begins that stands n behind the one at `at`; the first one is at 3.
local function pass(parcel, at, n)
  for _ = 1, n do at = at + 4 + struct.unpack('<I4', parcel, at) end
  return at
end

-- A parcel of n of its messages, those behind the first `skipped`.
local function cut(parcel, skipped, n)
  if skipped == 0 and n == size(parcel) then return parcel end
  local first = pass(parcel, 3, skipped)
  return struct.pack('<I2', n) .. string.sub(parcel, first, pass(parcel, first, n) - 1)
end

local function replace(number, parcel)
  fresh = fresh or {}
  fresh[number] = parcel
  save(number, parcel)
end

local function enter(parcel)
  if tail == head then since = now end
  replace(tail, parcel)
  tail = tail + 1
  queued = queued + size(parcel)
end

-- Delayed messages that are due join the tail, at most 1000 in one call. Nothing to do in the common case. A second
-- call goes on behind those of the first, which are still stored.
local function promote()
  if not delayed_at or delayed_at > now then return end
  local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', unparks, 1000)
  local fields = {}
  for i, n in ipairs(due) do
    fields[i] = 'd' .. n
    erase(fields[i])
    unpark[unparks + i] = n
  end
  unparks = unparks + #due
  for _, parcel in ipairs(#due > 0 and read(fields, #due) or {}) do
    if parcel then
      delayed = delayed - size(parcel)
      enter(parcel)
    end
  end
  local after = redis.call('ZRANGE', KEYS[2], unparks, unparks, 'WITHSCORES')
  delayed_at = after[2] and tonumber(after[2])
  delayed = delayed_at and math.max(1, delayed) or 0
end

-- What becomes of the messages of a parcel, a letter for each: A accepted, D duplicate, F full.
local function append(delay, retention, ids, parcel, backlog)
  local n, room = #ids, backlog - queued - delayed
  local scores = seen_until > now and redis.call('ZMSCORE', KEYS[4], unpack(ids, 1, n))
  local known_ids
  for i = 1, (scores or remembered) and n or 0 do
    if (scores and scores[i] and tonumber(scores[i]) >= (now + 1) * SEEN) or (remembered and remembered[ids[i]]) then
      known_ids = known_ids or {}
      known_ids[i] = true
    end
  end
  local letters
  if n <= room and not known_ids then letters = string.rep('A', n)
  else
    local all, taken, kept, at = {}, {}, {}, 3
    for i = 1, n do
      local next = pass(parcel, at, 1)
      all[i] = known_ids and known_ids[i] and 'D' or #kept >= room and 'F' or 'A'
      if all[i] == 'A' then
        kept[#kept + 1] = ids[i]
        taken[#kept] = string.sub(parcel, at, next - 1)
      end
      at = next
    end
    letters, ids, n = table.concat(all), kept, #kept
    if n == 0 then return letters end
    parcel = struct.pack('<I2', n) .. table.concat(taken)
  end
  local place = 0
  -- While messages that are due still wait to be promoted, a new one joins behind them.
  if delay > 0 or (delayed_at and delayed_at <= now) then
    local at = now + delay
    parked = parked + 1
    delayed = delayed + n
    if not delayed_at or at < delayed_at then delayed_at = at end
    local name = string.format('%016.0f', parked)
    park[parks + 1], park[parks + 2] = at, name
    parks = parks + 2
    save('d' .. name, parcel)
  else
    place = tail % PLACES + 1
    enter(parcel)
  end
  if retention > 0 then
    -- Not free while it is delayed: who asked for the later one would be told where that is.
    local at = now + delay + retention
    local score = int(at * SEEN + place)
    for i = 1, n do
      if remembered then remembered[ids[i]] = true end
      seen[sees + 1], seen[sees + 2] = score, ids[i]
      sees = sees + 2
    end
    if at > farthest then farthest = at end
  end
  return letters
end

-- n parcels from ARGV[first] on: delay ms, retention ms, ids (each once), and the parcel.
local function append_all(first, n, backlog)
  if n > 1 then remembered = {} end
  local letters = {}
  for i = 1, n do
    local at = first + 4 * (i - 1)
    letters[i] = append(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], backlog)
  end
  return table.concat(letters)
end

-- The n messages from parcel `first` on, without its first `skipped`, in parcels: up to where one is missing. Then how many
-- messages these are, how many more the last parcel holds, and the values of `others`: fields read in the same trip.
local function parcels(first, skipped, n, others)
  local found, got, at, answers = {}, 0, first, nil
  repeat
    -- As many as should do, if those of the queue are all alike.
    local asked = math.max(1, math.min(tail - at, math.ceil((n - got) * (tail - head) / math.max(1, queued))))
    local fields = not answers and others or {}
    local more = #fields
    local wanted = more
    for number = at, at + asked - 1 do
      if not (fresh and fresh[number]) then
        wanted = wanted + 1
        fields[wanted] = number
      end
    end
    local values = wanted > 0 and read(fields, wanted) or fields
    answers = answers or values
    local next = more
    for number = at, at + asked - 1 do
      local parcel = fresh and fresh[number]
      if not parcel then
        next = next + 1
        parcel = values[next]
      end
      if not parcel then return found, got, 0, answers end
      local has = size(parcel) - skipped
      local taken = math.min(has, n - got)
      found[#found + 1] = cut(parcel, skipped, taken)
      got, skipped = got + taken, 0
      if got == n then return found, got, has - taken, answers end
    end
    at = at + asked
  until at >= tail
  return found, got, 0, answers
end

-- How many messages of the parcel where what was handed out begins were settled before: letters may have been redriven to
-- stand before it, which cut them off.
local function skip_of_from() return from == head and skip or 0 end

-- What was handed out, and the values of others.
local function handed_out(others)
  local values, _, _, found = parcels(from, skip_of_from(), count, others)
  return values, found
end

-- Hands out the head and counts it. Parcels that somebody deleted by hand are skipped; nil: nothing was left. In the same
-- trip, the values of other fields.
local function hand_out(max, others)
  while tail > head do
    local wanted = math.max(1, math.min(max, limit, queued))
    local values, n, _, found = parcels(head, skip, wanted, others)
    if n > 0 then
      from, count = head, n
      deliveries = deliveries + 1
      if n == 1 then charged = charged + 1 end
      return values, found
    end
    head, skip = head + 1, 0
  end
end

local function uncount()
  if count == 0 then return end
  deliveries = math.max(0, deliveries - 1)
  if count == 1 then charged = math.max(0, charged - 1) end
end

local function unlock()
  deadline, count, since = nil, 0, now
end

local function batch(values) return {fence, deliveries, charged, limit, values} end

-- state json, version, state_version; false where there is none (nil would cut the reply short)
local function grant(values, state)
  return {batch(values), state[1], state[1] and version, state[2]}
end

local function lock(request, length, max)
  if is_mine(request) and count > 0 then
    deadline = now + length
    return grant(handed_out({'json', 'shape'}))
  end
  if nonce == request or is_leased() or not is_ready() then return false end
  if deadline and count > 0 then limit = 1 end
  local values, state = hand_out(max, {'json', 'shape'})
  if not values then return false end
  fence, nonce, deadline = fence + 1, request, now + length
  return grant(values, state)
end

-- A command for a list of arguments.
local function many(command, key, args, n)
  for i = 1, n, 1000 do redis.call(command, key, unpack(args, i, math.min(i + 999, n))) end
end

local function flush()
  local old, expires
  -- Also when parcels were deleted by hand.
  if tail == head then queued, skip = 0, 0 end
  if sees > 0 then
    -- Forgets in portions, for several calls at once.
    if now_us % 16 == 0 then
      old = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', '(' .. int((now + 1) * SEEN), 'LIMIT', 0, 32 * sees)
    end
    -- A minute more than is needed, so that it is not said again with every call.
    if farthest + 1000 > seen_until then
      expires = farthest + 61000
      seen_until = expires
    end
  end
  save('row', struct.pack(ROW, fence, nonce, deadline or 0, commit, from, count, deliveries, charged, limit, head, tail,
    parked, since, why, till or 0, paused, known, delayed, delayed_at or 0, version, failed, seen_until, queued, skip))

  many('HDEL', KEYS[1], drop, drops)
  many('HSET', KEYS[1], put, puts)
  many('ZADD', KEYS[2], park, parks)
  many('ZREM', KEYS[2], unpark, unparks)
  if old then many('ZREM', KEYS[4], old, #old) end
  many('ZADD', KEYS[4], seen, sees)
  if expires then redis.call('PEXPIREAT', KEYS[4], expires) end
  for i = 1, extras do redis.call(unpack(extra[i])) end
  local at = wake()
  if at ~= was_wake then
    if at then redis.call('ZADD', KEYS[3], at, ARGV[1]) else redis.call('ZREM', KEYS[3], ARGV[1]) end
  end
  if known == 1 and was_known ~= 1 then redis.call('ZADD', KEYS[5], 0, ARGV[1]) end
end
