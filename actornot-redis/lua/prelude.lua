-- KEYS 1 row (packed)  2 bodies (hash)  3 delayed (zset)  4 seen (zset)  5 state (hash)
--      6 ready of the kind (zset)  7 locked of the kind (zset)  8 names of the kind (zset)     ARGV 1 the entity's key
local t = redis.call('TIME')
local now_us = t[1] * 1000000 + t[2]
local now = math.floor(now_us / 1000)
local LONGEST = 3600000

-- Lua writes numbers with 14 digits when it concatenates: 1.7900000000001e+15. Never let it.
local function int(n) return string.format('%d', n) end

-- What will be written, in this order, after everything was decided. Nothing below calls a write before flush.
local fresh, put, drop, park, unpark, remember, extra = {}, {}, {}, {}, {}, {}, {}
-- Ids whose messages joined and left, for `locate`: the bodies hash counts them in fields `i` + id.
local came, left = {}, {}
local function id_of(value) return string.sub(value, 1, string.find(value, '\0', 1, true) - 1) end

local function queued(r) return r.tail - r.head end

-- When `due` reports it.
local function wake_at(r)
  if r.paused then return nil end
  local head = queued(r) > 0 and r.since or r.delayed_at
  if not head then return nil end
  return math.max(head, r['until'] or head, r.deadline or head)
end

-- One string, read and written whole: as fields of a hash the row was half of what a call cost.
local function load()
  local packed = redis.call('GET', KEYS[1])
  if not packed then return nil end
  local v = cmsgpack.unpack(packed)
  local r = {fence = v[1], nonce = v[2] or nil, deadline = v[3] or nil, commit = v[4] or nil, from = v[5] or nil,
    count = v[6], deliveries = v[7], charged = v[8], limit = v[9], head = v[10], tail = v[11], parked = v[12],
    since = v[13], why = v[14] or nil, ['until'] = v[15] or nil, paused = v[16] or nil, known = v[17],
    delayed = v[18], delayed_at = v[19] or nil, version = v[20], failed = v[21] or nil, seen_until = v[22]}
  r.was_known, r.was_locked, r.was_due = r.known, r.deadline, wake_at(r)
  return r
end

local function new()
  return {fence = now, deliveries = 0, charged = 0, limit = 4294967295, head = 1, tail = 1, parked = 0,
    count = 0, since = now, delayed = 0, known = 1, version = 0, seen_until = 0}
end

local function is_mine(r, nonce) return r.deadline ~= nil and r.nonce == nonce end
local function is_leased(r) return r.deadline ~= nil and now < r.deadline and r.deadline <= now + LONGEST end
local function is_ready(r) return not r.paused and not (r['until'] and now < r['until']) and queued(r) > 0 end

local function enter(r, value)
  if queued(r) == 0 then r.since = now end
  fresh[r.tail] = value
  put[#put + 1] = int(r.tail)
  put[#put + 1] = value
  r.tail = r.tail + 1
end

-- Delayed messages that are due join the tail, at most 1000 in one call. Nothing to do in the common case. A second
-- call goes on behind those of the first, which are still stored.
local function promote(r)
  if not r.delayed_at or r.delayed_at > now then return end
  local done, names = #unpark, {}
  local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', done, 1000)
  for i, n in ipairs(due) do names[i] = 'd' .. n; drop[#drop + 1] = names[i]; unpark[#unpark + 1] = n end
  for _, value in ipairs(redis.call('HMGET', KEYS[2], unpack(names))) do
    if value then enter(r, value) end
  end
  local after = redis.call('ZRANGE', KEYS[3], #unpark, #unpark, 'WITHSCORES')
  r.delayed_at = after[2] and tonumber(after[2])
  r.delayed = r.delayed_at and r.delayed - #due or 0
end

-- A accepted, D duplicate, F full. `body` = headers \0 payload; ids hold no NUL.
local function append(r, id, delay, retention, body, backlog)
  if remember[id] then return 'D' end
  local expires = redis.call('ZSCORE', KEYS[4], id)
  if expires and tonumber(expires) > now then return 'D' end
  if queued(r) + r.delayed >= backlog then return 'F' end
  local value = id .. '\0' .. body
  came[#came + 1] = id
  -- While messages that are due still wait to be promoted, a new one joins behind them.
  if delay > 0 or (r.delayed_at and r.delayed_at <= now) then
    local at = now + delay
    r.parked = r.parked + 1
    r.delayed = r.delayed + 1
    if not r.delayed_at or at < r.delayed_at then r.delayed_at = at end
    local name = string.format('%016.0f', r.parked)
    park[#park + 1] = at
    park[#park + 1] = name
    put[#put + 1] = 'd' .. name
    put[#put + 1] = value
  else
    enter(r, value)
  end
  if retention > 0 then
    remember[id] = now + retention
    remember[#remember + 1] = id
  end
  return 'A'
end

-- The first n messages from `from`: values `id \0 headers \0 payload`.
local function bodies(from, n)
  local names, values = {}, {}
  for seq = from, from + n - 1 do
    if not fresh[seq] then names[#names + 1] = int(seq) end
  end
  local stored, next = {}, 1
  for i = 1, #names, 1000 do
    local part = redis.call('HMGET', KEYS[2], unpack(names, i, math.min(i + 999, #names)))
    for _, value in ipairs(part) do stored[#stored + 1] = value end
  end
  for seq = from, from + n - 1 do
    local value = fresh[seq]
    if not value then value = stored[next]; next = next + 1 end
    values[#values + 1] = value
  end
  return values
end

-- Hands out the head and counts it. Rows that somebody deleted by hand are skipped; nil: nothing was left.
local function hand_out(r, max)
  while queued(r) > 0 do
    local values = bodies(r.head, math.max(1, math.min(max, r.limit, queued(r))))
    local n = 0
    while n < #values and values[n + 1] do n = n + 1 end
    if n > 0 then
      for i = #values, n + 1, -1 do values[i] = nil end
      r.from, r.count = r.head, n
      r.deliveries = r.deliveries + 1
      if n == 1 then r.charged = r.charged + 1 end
      return values
    end
    r.head = r.head + 1
    r.mended = true
  end
end

local function uncount(r)
  if r.count == 0 then return end
  r.deliveries = math.max(0, r.deliveries - 1)
  if r.count == 1 then r.charged = math.max(0, r.charged - 1) end
end

local function unlock(r)
  r.deadline, r.from, r.count, r.since = nil, nil, 0, now
end

local function batch(r, values) return {int(r.fence), r.deliveries, r.charged, r.limit, values} end

-- state json, version, state_version; false where there is none (nil would cut the reply short)
local function grant(r, values)
  local s = redis.call('HMGET', KEYS[5], 'json', 'shape')
  return {batch(r, values), s[1], s[1] and r.version, s[2]}
end

local function lock(r, nonce, length, max)
  if is_mine(r, nonce) and r.count > 0 then
    r.deadline = now + length
    return grant(r, bodies(r.from, r.count))
  end
  if r.nonce == nonce or is_leased(r) or not is_ready(r) then return false end
  if r.deadline and r.count > 0 then r.limit = 1 end
  local values = hand_out(r, max)
  if not values then return false end
  r.fence, r.nonce, r.deadline = r.fence + 1, nonce, now + length
  return grant(r, values)
end

local function many(command, key, args, step)
  for i = 1, #args, step do redis.call(command, key, unpack(args, i, math.min(i + step - 1, #args))) end
end

-- How often each id is stored from now on, for `locate`: fields of what is put and dropped anyway.
local function count_ids()
  local change, names = {}, {}
  local function add(ids, by)
    for _, id in ipairs(ids) do
      if not change[id] then change[id] = 0; names[#names + 1] = 'i' .. id end
      change[id] = change[id] + by
    end
  end
  add(came, 1)
  add(left, -1)
  for i = 1, #names, 1000 do
    local last = math.min(i + 999, #names)
    local counts = redis.call('HMGET', KEYS[2], unpack(names, i, last))
    for n = i, last do
      local name = names[n]
      local count = (tonumber(counts[n - i + 1]) or 0) + change[string.sub(name, 2)]
      if count > 0 then put[#put + 1] = name; put[#put + 1] = count
      else drop[#drop + 1] = name end
    end
  end
end

local function flush(r)
  local old = {}
  -- Forgets in portions, for several calls at once.
  if #remember > 0 and now_us % 16 == 0 then
    old = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 64 * #remember)
  end
  if #came > 0 or #left > 0 then count_ids() end

  many('HDEL', KEYS[2], drop, 1000)
  many('HSET', KEYS[2], put, 1000)
  many('ZADD', KEYS[3], park, 1000)
  many('ZREM', KEYS[3], unpark, 1000)
  many('ZREM', KEYS[4], old, 1000)
  if #remember > 0 then
    local last, seen = 0, {}
    for _, id in ipairs(remember) do
      seen[#seen + 1] = remember[id]
      seen[#seen + 1] = id
      last = math.max(last, remember[id])
    end
    many('ZADD', KEYS[4], seen, 1000)
    -- A minute more than is needed, so that it is not said again with every call.
    if last + 1000 > r.seen_until then
      r.seen_until = last + 61000
      redis.call('PEXPIREAT', KEYS[4], r.seen_until)
    end
  end
  for _, call in ipairs(extra) do redis.call(unpack(call)) end
  local due = wake_at(r)
  local to, from = r.deadline and KEYS[7] or KEYS[6], r.was_locked and KEYS[7] or KEYS[6]
  if r.was_due and (not due or to ~= from) then redis.call('ZREM', from, ARGV[1]) end
  if due and (due ~= r.was_due or to ~= from) then redis.call('ZADD', to, due, ARGV[1]) end
  if r.known == 1 and r.was_known ~= 1 then redis.call('ZADD', KEYS[8], 0, ARGV[1]) end
  redis.call('SET', KEYS[1], cmsgpack.pack({r.fence, r.nonce or false, r.deadline or false, r.commit or false,
    r.from or false, r.count, r.deliveries, r.charged, r.limit, r.head, r.tail, r.parked, r.since, r.why or false,
    r['until'] or false, r.paused or false, r.known, r.delayed, r.delayed_at or false, r.version, r.failed or false,
    r.seen_until}))
end
