-- A call holds items, each about one entity: all their keys, then for each the number of its keys, the number of its
-- arguments, and these. An item finds its own as KEYS and ARGV; the verb behind this is run for one after the other.
-- KEYS 1 the entity (hash): `row` packed; `json`, `shape`, `error`, `paused` of its state; messages by number, delayed
--        ones as `d` + number; how many are stored of an id, for `locate`, as `i` + id
--      2 delayed (zset)  3 seen (zset)  4 ready of the kind (zset)  5 locked of the kind (zset)  6 names of the kind (zset)
-- ARGV 1 the entity's key
local all_keys, all_args = KEYS, ARGV
local KEYS, ARGV
local t = redis.call('TIME')
local now_us = t[1] * 1000000 + t[2]
local now = math.floor(now_us / 1000)
local LONGEST = 3600000

-- Lua writes numbers with 14 digits when it concatenates: 1.7900000000001e+15. Never let it.
local function int(n) return string.format('%d', n) end

-- The row, from load to flush. Locals, because a table of them was a third of what a call cost.
local fence, nonce, deadline, commit, from, count, deliveries, charged, limit, head, tail, parked, since, why, till, paused,
  known, delayed, delayed_at, version, failed, seen_until
-- As it was found.
local was_known, was_locked, was_due

-- What will be written, in this order, after everything was decided. Nothing below calls a write before flush.
local fresh, put, drop, park, unpark, remember, extra
-- How many messages of an id are stored, as far as it was read, and how many come and go.
local stored, change

local function queued() return tail - head end

-- When `due` reports it.
local function wake_at()
  if paused then return nil end
  local at = tail > head and since or delayed_at
  if not at then return nil end
  return math.max(at, till or at, deadline or at)
end

local function reset()
  fresh, put, drop, park, unpark, remember, extra, stored, change = {}, {}, {}, {}, {}, {}, {}, {}, {}
  fence, nonce, deadline, commit, from, count, deliveries, charged, limit = now, nil, nil, nil, nil, 0, 0, 0, 4294967295
  head, tail, parked, since, why, till, paused, known, delayed, delayed_at = 1, 1, 0, now, nil, nil, nil, 1, 0, nil
  version, failed, seen_until, was_known, was_locked, was_due = 0, nil, 0, nil, nil, nil
end

-- Whether there is a row. One string, read and written whole: as fields of its own it was half of what a call cost.
-- In the same trip, how many are stored of some ids.
local function load(ids)
  local packed
  if ids then
    local names = {'row'}
    for i = 1, #ids do names[i + 1] = 'i' .. ids[i] end
    local found = redis.call('HMGET', KEYS[1], unpack(names))
    for i = 1, #ids do stored[ids[i]] = tonumber(found[i + 1]) or 0 end
    packed = found[1]
  else
    packed = redis.call('HGET', KEYS[1], 'row')
  end
  if not packed then return false end
  fence, nonce, deadline, commit, from, count, deliveries, charged, limit, head, tail, parked, since, why, till, paused,
    known, delayed, delayed_at, version, failed, seen_until = cmsgpack.unpack(packed)
  was_known, was_locked, was_due = known, deadline, wake_at()
  return true
end

local function is_mine(other) return deadline and nonce == other end
local function is_leased() return deadline and now < deadline and deadline <= now + LONGEST end
local function is_ready() return not paused and not (till and now < till) and tail > head end

local function enter(value)
  if tail == head then since = now end
  fresh[tail] = value
  put[#put + 1] = int(tail)
  put[#put + 1] = value
  tail = tail + 1
end

-- Delayed messages that are due join the tail, at most 1000 in one call. Nothing to do in the common case. A second
-- call goes on behind those of the first, which are still stored.
local function promote()
  if not delayed_at or delayed_at > now then return end
  local done, names = #unpark, {}
  local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', done, 1000)
  for i, n in ipairs(due) do names[i] = 'd' .. n; drop[#drop + 1] = names[i]; unpark[#unpark + 1] = n end
  for _, value in ipairs(#names > 0 and redis.call('HMGET', KEYS[1], unpack(names)) or names) do
    if value then enter(value) end
  end
  local after = redis.call('ZRANGE', KEYS[2], #unpark, #unpark, 'WITHSCORES')
  delayed_at = after[2] and tonumber(after[2])
  delayed = delayed_at and delayed - #due or 0
end

-- A accepted, D duplicate, F full. `body` = headers \0 payload; ids hold no NUL.
local function append(id, delay, retention, body, backlog)
  if remember[id] then return 'D' end
  local expires = redis.call('ZSCORE', KEYS[3], id)
  if expires and tonumber(expires) > now then return 'D' end
  if queued() + delayed >= backlog then return 'F' end
  local value = id .. '\0' .. body
  change[id] = (change[id] or 0) + 1
  -- While messages that are due still wait to be promoted, a new one joins behind them.
  if delay > 0 or (delayed_at and delayed_at <= now) then
    local at = now + delay
    parked = parked + 1
    delayed = delayed + 1
    if not delayed_at or at < delayed_at then delayed_at = at end
    local name = string.format('%016.0f', parked)
    park[#park + 1] = at
    park[#park + 1] = name
    put[#put + 1] = 'd' .. name
    put[#put + 1] = value
  else
    enter(value)
  end
  if retention > 0 then
    remember[id] = now + retention
    remember[#remember + 1] = id
  end
  return 'A'
end

-- The n messages from `first`: values `id \0 headers \0 payload`, false where none is stored. In the same trip, how many
-- are stored of some ids.
local function bodies(first, n, ids)
  local names, values = {}, {}
  for seq = first, first + n - 1 do
    local value = fresh[seq]
    values[seq - first + 1] = value or false
    if not value then names[#names + 1] = int(seq) end
  end
  local numbers = #names
  for i = 1, ids and #ids or 0 do names[numbers + i] = 'i' .. ids[i] end
  if #names == 0 then return values end
  local found = {}
  for i = 1, #names, 1000 do
    local part = redis.call('HMGET', KEYS[1], unpack(names, i, math.min(i + 999, #names)))
    if #names <= 1000 then found = part
    else for j = 1, #part do found[i + j - 1] = part[j] end end
  end
  for i = 1, ids and #ids or 0 do stored[ids[i]] = tonumber(found[numbers + i]) or 0 end
  local at = 0
  for i = 1, n do
    if not values[i] then at = at + 1; values[i] = found[at] end
  end
  return values
end

-- Hands out the head and counts it. Rows that somebody deleted by hand are skipped; nil: nothing was left.
local function hand_out(max)
  while tail > head do
    local values = bodies(head, math.max(1, math.min(max, limit, queued())))
    local n = 0
    while values[n + 1] do n = n + 1 end
    if n > 0 then
      for i = #values, n + 1, -1 do values[i] = nil end
      from, count = head, n
      deliveries = deliveries + 1
      if n == 1 then charged = charged + 1 end
      return values
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
  deadline, from, count, since = nil, nil, 0, now
end

local function batch(values) return {int(fence), deliveries, charged, limit, values} end

-- state json, version, state_version; false where there is none (nil would cut the reply short)
local function grant(values)
  local s = redis.call('HMGET', KEYS[1], 'json', 'shape')
  return {batch(values), s[1], s[1] and version, s[2]}
end

local function lock(request, length, max)
  if is_mine(request) and count > 0 then
    deadline = now + length
    return grant(bodies(from, count))
  end
  if nonce == request or is_leased() or not is_ready() then return false end
  if deadline and count > 0 then limit = 1 end
  local values = hand_out(max)
  if not values then return false end
  fence, nonce, deadline = fence + 1, request, now + length
  return grant(values)
end

local function many(command, key, args)
  for i = 1, #args, 1000 do redis.call(command, key, unpack(args, i, math.min(i + 999, #args))) end
end

-- How often each id is stored from now on, for `locate`: fields of what is put and dropped anyway.
local function count_ids()
  local unread = {}
  for id in pairs(change) do
    if not stored[id] then unread[#unread + 1] = id end
  end
  if #unread > 0 then bodies(0, 0, unread) end
  for id, by in pairs(change) do
    local left = stored[id] + by
    if left <= 0 then drop[#drop + 1] = 'i' .. id
    elseif by ~= 0 then put[#put + 1] = 'i' .. id; put[#put + 1] = left end
  end
end

local function flush()
  local old, seen, last = {}, {}, 0
  -- Forgets in portions, for several calls at once.
  if #remember > 0 and now_us % 16 == 0 then
    old = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 64 * #remember)
  end
  count_ids()
  for _, id in ipairs(remember) do
    seen[#seen + 1] = remember[id]
    seen[#seen + 1] = id
    last = math.max(last, remember[id])
  end
  -- A minute more than is needed, so that it is not said again with every call.
  local expires = last > 0 and last + 1000 > seen_until and last + 61000
  seen_until = expires or seen_until
  put[#put + 1] = 'row'
  put[#put + 1] = cmsgpack.pack(fence, nonce, deadline, commit, from, count, deliveries, charged, limit, head, tail,
    parked, since, why, till, paused, known, delayed, delayed_at, version, failed, seen_until)

  many('HDEL', KEYS[1], drop)
  many('HSET', KEYS[1], put)
  many('ZADD', KEYS[2], park)
  many('ZREM', KEYS[2], unpark)
  many('ZREM', KEYS[3], old)
  many('ZADD', KEYS[3], seen)
  if expires then redis.call('PEXPIREAT', KEYS[3], expires) end
  for _, call in ipairs(extra) do redis.call(unpack(call)) end
  local due = wake_at()
  local to, last_in = deadline and KEYS[5] or KEYS[4], was_locked and KEYS[5] or KEYS[4]
  if was_due and (not due or to ~= last_in) then redis.call('ZREM', last_in, ARGV[1]) end
  if due and (due ~= was_due or to ~= last_in) then redis.call('ZADD', to, due, ARGV[1]) end
  if known == 1 and was_known ~= 1 then redis.call('ZADD', KEYS[6], 0, ARGV[1]) end
end
