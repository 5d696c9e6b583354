-- A call holds items, each about one entity: the keys of all, and one argument, packed: for each item how many keys it has,
-- and its arguments. (As arguments of the call each would become an object of the server and a text, also the numbers.) An
-- item finds its own as KEYS and ARGV; the verb behind this is run for one after the other.
-- KEYS 1 the entity (hash): `row` packed; `json`, `shape`, `error`, `paused` of its state; messages by number, delayed
--        ones as `d` + number; how many are stored of an id, for `locate`, as `i` + id
--      2 delayed (zset)  3 seen (zset)  4 wake of the kind (zset)  5 names of the kind (zset)
-- ARGV 1 the entity's key
local all_keys, items = KEYS, cmsgpack.unpack(ARGV[1])
local KEYS, ARGV = {}, nil
local t = redis.call('TIME')
local now_us = t[1] * 1000000 + t[2]
local now = math.floor(now_us / 1000)
local LONGEST = 3600000
-- In `wake` the locked ones stand lower by this, so that `due` can tell them from the others.
local LOCKED = 4503599627370496

-- Lua writes numbers with 14 digits when it concatenates: 1.7900000000001e+15. Never let it. Numbers that are arguments of
-- commands are written in full.
local function int(n) return string.format('%d', n) end

-- The row, from load to flush. Locals, because a table of them was a third of what a call cost.
local fence, nonce, deadline, commit, from, count, deliveries, charged, limit, head, tail, parked, since, why, till, paused,
  known, delayed, delayed_at, version, failed, seen_until
-- How it is stored, none as 0 or an empty text; of moments 7 bytes, because a number may have 53 bits.
local ROW = '<I7sI7si7I4I4I4I4i7i7I7I7sI7I1I1I7I7I7I1I7'
-- As it was found.
local was_known, was_wake

-- What will be written, in this order, after everything was decided. Nothing below calls a write before flush. The lists
-- are those of the item before, written over; how long they are stands beside them.
local drop, put, park, unpark, seen, extra, changed = {}, {}, {}, {}, {}, {}, {}
local drops, puts, parks, unparks, sees, extras, changes
-- What this item has entered, by number; the ids it remembers, and until when at most.
local fresh, remembered, farthest
-- How many messages are stored of an id, by the field that says so. Those of `changed` are written.
local counts

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

local function queued() return tail - head end

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
  drops, puts, parks, unparks, sees, extras, changes, farthest = 0, 0, 0, 0, 0, 0, 0, 0
  fresh, remembered, counts = nil, nil, nil
  fence, nonce, deadline, commit, from, count, deliveries, charged, limit = now, '', nil, '', 0, 0, 0, 0, 4294967295
  head, tail, parked, since, why, till, paused, known, delayed, delayed_at = 1, 1, 0, now, '', nil, 0, 1, 0, nil
  version, failed, seen_until, was_known, was_wake = 0, 0, 0, nil, nil
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

-- What was read of n counters: of all that may change, before they do.
local function note(counters, found, n)
  counts = {}
  for i = 1, n do counts[counters[i]] = tonumber(found[i]) or 0 end
end

-- Whether there is a row. One string, read and written whole: as fields of its own it was half of what a call cost.
-- In the same trip, how many messages are stored of the ids that come or go: `counters` are their fields.
local function load(counters)
  local packed
  if counters then
    local n = #counters
    counters[n + 1] = 'row'
    local found = read(counters, n + 1)
    note(counters, found, n)
    packed = found[n + 1]
  else
    packed = redis.call('HGET', KEYS[1], 'row')
  end
  if not packed then return false end
  fence, nonce, deadline, commit, from, count, deliveries, charged, limit, head, tail, parked, since, why, till, paused,
    known, delayed, delayed_at, version, failed, seen_until = struct.unpack(ROW, packed)
  if deadline == 0 then deadline = nil end
  if till == 0 then till = nil end
  if delayed_at == 0 then delayed_at = nil end
  was_known, was_wake = known, wake()
  return true
end

local function is_mine(other) return deadline and nonce == other end
local function is_leased() return deadline and now < deadline and deadline <= now + LONGEST end
local function is_ready() return paused == 0 and not (till and now < till) and tail > head end

local function enter(value)
  if tail == head then since = now end
  fresh = fresh or {}
  fresh[tail] = value
  save(tail, value)
  tail = tail + 1
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
  for _, value in ipairs(#due > 0 and read(fields, #due) or {}) do
    if value then enter(value) end
  end
  local after = redis.call('ZRANGE', KEYS[2], unparks, unparks, 'WITHSCORES')
  delayed_at = after[2] and tonumber(after[2])
  delayed = delayed_at and delayed - #due or 0
end

local function count_id(counter, by)
  counts[counter] = counts[counter] + by
  changes = changes + 1
  changed[changes] = counter
end

-- A accepted, D duplicate, F full. `expires`: until when the id was to be remembered.
local function append(id, delay, retention, value, expires, backlog)
  if (expires and tonumber(expires) > now) or (remembered and remembered[id]) then return 'D' end
  if tail - head + delayed >= backlog then return 'F' end
  count_id('i' .. id, 1)
  -- While messages that are due still wait to be promoted, a new one joins behind them.
  if delay > 0 or (delayed_at and delayed_at <= now) then
    local at = now + delay
    parked = parked + 1
    delayed = delayed + 1
    if not delayed_at or at < delayed_at then delayed_at = at end
    local name = string.format('%016.0f', parked)
    park[parks + 1], park[parks + 2] = at, name
    parks = parks + 2
    save('d' .. name, value)
  else
    enter(value)
  end
  if retention > 0 then
    local at = now + retention
    if remembered then remembered[id] = true end
    seen[sees + 1], seen[sees + 2] = at, id
    sees = sees + 2
    if at > farthest then farthest = at end
  end
  return 'A'
end

-- Messages from ARGV[first] on: id, delay ms, retention ms, value (`id \0 headers \0 payload`; the first two hold no NUL).
local function append_all(first, n, backlog)
  local admissions, ids, expires = {}, {}, nil
  if n > 1 then remembered = {} end
  for i = 0, n - 1 do
    local at, k = first + 4 * i, i % 1000
    if k == 0 then
      for j = 1, math.min(1000, n - i) do ids[j] = ARGV[at + 4 * (j - 1)] end
      expires = seen_until > now and redis.call('ZMSCORE', KEYS[3], unpack(ids, 1, math.min(1000, n - i))) or {}
    end
    admissions[i + 1] = append(ids[k + 1], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], expires[k + 1], backlog)
  end
  return admissions
end

-- The n messages from `first`: values `id \0 headers \0 payload`, false where none is stored. In the same trip, `others`:
-- fields whose values are the second answer.
local function bodies(first, n, others)
  local fields, values = others or {}, {}
  local more = #fields
  local asked = more
  for i = 1, n do
    local value = fresh and fresh[first + i - 1]
    values[i] = value or false
    if not value then
      asked = asked + 1
      fields[asked] = first + i - 1
    end
  end
  if asked == 0 then return values, fields end
  local found = read(fields, asked)
  if asked == more then return values, found end
  local at = more
  for i = 1, n do
    if not values[i] then
      at = at + 1
      values[i] = found[at]
    end
  end
  return values, found
end

-- Hands out the head and counts it. Rows that somebody deleted by hand are skipped; nil: nothing was left. In the same
-- trip, the values of other fields.
local function hand_out(max, others)
  while tail > head do
    local values, found = bodies(head, math.max(1, math.min(max, limit, tail - head)), others)
    local n = 0
    while values[n + 1] do n = n + 1 end
    if n > 0 then
      for i = #values, n + 1, -1 do values[i] = nil end
      from, count = head, n
      deliveries = deliveries + 1
      if n == 1 then charged = charged + 1 end
      return values, found
    end
    head = head + 1
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
    return grant(bodies(from, count, {'json', 'shape'}))
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
  if sees > 0 then
    -- Forgets in portions, for several calls at once.
    if now_us % 16 == 0 then
      old = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 32 * sees)
    end
    -- A minute more than is needed, so that it is not said again with every call.
    if farthest + 1000 > seen_until then
      expires = farthest + 61000
      seen_until = expires
    end
  end
  for i = 1, changes do
    local counter = changed[i]
    if counts[counter] > 0 then save(counter, counts[counter]) else erase(counter) end
  end
  save('row', struct.pack(ROW, fence, nonce, deadline or 0, commit, from, count, deliveries, charged, limit, head, tail,
    parked, since, why, till or 0, paused, known, delayed, delayed_at or 0, version, failed, seen_until))

  many('HDEL', KEYS[1], drop, drops)
  many('HSET', KEYS[1], put, puts)
  many('ZADD', KEYS[2], park, parks)
  many('ZREM', KEYS[2], unpark, unparks)
  if old then many('ZREM', KEYS[3], old, #old) end
  many('ZADD', KEYS[3], seen, sees)
  if expires then redis.call('PEXPIREAT', KEYS[3], expires) end
  for i = 1, extras do redis.call(unpack(extra[i])) end
  local at = wake()
  if at ~= was_wake then
    if at then redis.call('ZADD', KEYS[4], at, ARGV[1]) else redis.call('ZREM', KEYS[4], ARGV[1]) end
  end
  if known == 1 and was_known ~= 1 then redis.call('ZADD', KEYS[5], 0, ARGV[1]) end
end
