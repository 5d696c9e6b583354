-- KEYS 9 dead of the entity (hash id -> numbers)  10 letters of the kind (hash number -> letter)
--      11 letters in order (zset)  12 partition record (hash)  13 channels in use (set)  14.. channels (lists)
-- ARGV 2 commit id  3 nonce  4 fence  5 lease ms  6 max of the next batch, 0 = release  7 batch_limit
--      8 '1' = new state  9 state  10 its shape's version  11 verdict: proceed|dead|wait|pause  12 its text
--      13 why  14 wait ms  15 partition  16 number of acked ids  17 number of messages to itself  18 of sends
--      19.. acked ids; then id, delay, retention, body for each to itself; then index of KEYS, partition, blob for each send
local function released(r)
  local wake = wake_at(r)
  return {'R', wake and math.max(0, wake - now) or -1}
end
local r = load()
if not r then return {'L'} end
if r.commit == ARGV[2] then
  if is_mine(r, ARGV[3]) and r.count > 0 then return {'C', batch(r, bodies(r.from, r.count))} end
  return released(r)
end
if not is_mine(r, ARGV[3]) or int(r.fence) ~= ARGV[4] then return {'L'} end
local acked, own, sends = tonumber(ARGV[16]), tonumber(ARGV[17]), tonumber(ARGV[18])
local settled = acked + (ARGV[11] == 'dead' and 1 or 0)
if settled > r.count then
  return redis.error_reply('CONFLICT more is settled than was handed out')
end
local handed = bodies(r.from, settled)
for i = 1, settled do
  if not handed[i] then return redis.error_reply('CONFLICT a message that was handed out is no longer stored') end
  local id = ARGV[18 + i]
  if i <= acked and string.sub(handed[i], 1, #id + 1) ~= id .. '\0' then
    return redis.error_reply('CONFLICT the acknowledged ids are no prefix of what was handed out')
  end
end

promote(r)
for i = 0, settled - 1 do
  drop[#drop + 1] = int(r.from + i)
  left[#left + 1] = id_of(handed[i + 1])
end
local state = {}
if ARGV[11] == 'proceed' or ARGV[11] == 'dead' then
  r.why, r['until'] = nil, nil
  if ARGV[11] == 'dead' then
    local letter = handed[settled]
    local id = id_of(letter)
    local last = tonumber(redis.call('HGET', KEYS[12], 'dead') or 0)
    local n = math.max(last + 1, now)
    local number = int(n * 1024 + tonumber(ARGV[15]))
    local before = redis.call('HGET', KEYS[9], id)
    extra[#extra + 1] = {'HSET', KEYS[12], 'dead', int(n)}
    extra[#extra + 1] = {'HSET', KEYS[10], number,
      ARGV[1] .. '\0' .. r.deliveries .. '\0' .. #ARGV[12] .. '\0' .. ARGV[12] .. letter}
    extra[#extra + 1] = {'ZADD', KEYS[11], number, number}
    extra[#extra + 1] = {'HSET', KEYS[9], id, before and before .. ' ' .. number or number}
    state = {'error', ARGV[12]}
    r.failed = 1
  elseif r.failed then
    extra[#extra + 1] = {'HDEL', KEYS[5], 'error'}
    r.failed = nil
  end
elseif ARGV[11] == 'wait' then
  r.why, r['until'] = ARGV[13], now + tonumber(ARGV[14])
  if ARGV[12] ~= '' then
    state = {'error', ARGV[12]}
    r.failed = 1
  end
  if r.why == 'not_ready' then uncount(r) end
else
  r.paused = '1'
  state = {'paused', ARGV[12]}
end
if ARGV[8] == '1' then
  r.version = r.version + 1
  for _, value in ipairs({'json', ARGV[9], 'shape', ARGV[10]}) do state[#state + 1] = value end
end
if #state > 0 then extra[#extra + 1] = {'HSET', KEYS[5], unpack(state)} end
-- A redriven letter may stand before what was handed out: the head moves only over what was settled there.
if r.head == r.from then r.head = r.head + settled
elseif settled > 0 then
  local between = bodies(r.head, r.from - r.head)
  for i, value in ipairs(between) do
    put[#put + 1] = int(r.from + settled - #between + i - 1)
    put[#put + 1] = value
    fresh[r.from + settled - #between + i - 1] = value
  end
  for seq = r.head, math.min(r.head + settled, r.from) - 1 do drop[#drop + 1] = int(seq) end
  r.head = r.head + settled
end
if settled > 0 then r.deliveries, r.charged = 0, 0 end
r.from, r.count = nil, 0
r.limit = math.max(1, tonumber(ARGV[7]))
r.fence, r.commit = r.fence + 1, ARGV[2]
local at = 19 + acked
for _ = 1, own do
  append(r, ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3], math.huge)
  at = at + 4
end
if sends > 0 then
  local n = math.max(now_us, tonumber(redis.call('HGET', KEYS[12], 'sent') or 0))
  for _ = 1, sends do
    n = n + 1
    extra[#extra + 1] = {'RPUSH', KEYS[tonumber(ARGV[at])], int(n) .. '\0' .. ARGV[at + 2]}
    extra[#extra + 1] = {'SADD', KEYS[13], ARGV[at + 1]}
    at = at + 3
  end
  extra[#extra + 1] = {'HSET', KEYS[12], 'sent', int(n)}
end
local values = tonumber(ARGV[6]) > 0 and is_ready(r) and hand_out(r, tonumber(ARGV[6]))
if values then r.deadline = now + tonumber(ARGV[5]) else unlock(r) end
flush(r)
if values then return {'C', batch(r, values)} end
return released(r)
