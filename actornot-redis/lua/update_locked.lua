-- KEYS 7 partition record (hash)  8 channels in use (set); in front of the channels (lists), for a dead letter:
--      9 dead of the entity (hash id -> numbers)  10 letters of the kind (hash number -> letter)  11 letters in order (zset)
-- ARGV 2 commit id  3 nonce  4 fence  5 lease ms  6 max of the next batch, 0 = release  7 batch_limit
--      8 '1' = new state  9 state  10 its shape's version  11 verdict: proceed|dead|wait|pause  12 its text
--      13 why  14 wait ms  15 partition  16 number of acked ids  17 number of messages to itself  18 of sends
--      19.. acked ids; then id, delay, retention, body for each to itself; then index of KEYS, partition, blob for each send
local function released()
  local wake = wake_at()
  return {'R', wake and math.max(0, wake - now) or -1}
end
if not load() then return {'L'} end
if commit == ARGV[2] then
  if is_mine(ARGV[3]) and count > 0 then return {'C', batch(bodies(from, count))} end
  return released()
end
if not is_mine(ARGV[3]) or int(fence) ~= ARGV[4] then return {'L'} end
local acked, own, sends = tonumber(ARGV[16]), tonumber(ARGV[17]), tonumber(ARGV[18])
local verdict, text = ARGV[11], ARGV[12]
local settled = acked + (verdict == 'dead' and 1 or 0)
if settled > count then
  return redis.error_reply('CONFLICT more is settled than was handed out')
end
local ids = {}
for i = 1, acked do ids[i] = ARGV[18 + i] end
local handed = settled > 0 and bodies(from, settled, ids) or {}
for i = 1, settled do
  local value, id = handed[i], ids[i]
  if not value then return redis.error_reply('CONFLICT a message that was handed out is no longer stored') end
  if id and string.sub(value, 1, #id + 1) ~= id .. '\0' then
    return redis.error_reply('CONFLICT the acknowledged ids are no prefix of what was handed out')
  end
  ids[i] = id or string.sub(value, 1, string.find(value, '\0', 1, true) - 1)
end

promote()
for i = 1, settled do
  drop[#drop + 1] = int(from + i - 1)
  change[ids[i]] = (change[ids[i]] or 0) - 1
end
local function save(name, value) put[#put + 1] = name; put[#put + 1] = value end
if verdict == 'proceed' or verdict == 'dead' then
  why, till = nil, nil
  if verdict == 'dead' then
    local letter, id = handed[settled], ids[settled]
    local last = tonumber(redis.call('HGET', KEYS[7], 'dead') or 0)
    local n = math.max(last + 1, now)
    local number = int(n * 1024 + tonumber(ARGV[15]))
    local before = redis.call('HGET', KEYS[9], id)
    extra[#extra + 1] = {'HSET', KEYS[7], 'dead', int(n)}
    extra[#extra + 1] = {'HSET', KEYS[10], number,
      ARGV[1] .. '\0' .. deliveries .. '\0' .. #text .. '\0' .. text .. letter}
    extra[#extra + 1] = {'ZADD', KEYS[11], number, number}
    extra[#extra + 1] = {'HSET', KEYS[9], id, before and before .. ' ' .. number or number}
    save('error', text)
    failed = 1
  elseif failed then
    drop[#drop + 1] = 'error'
    failed = nil
  end
elseif verdict == 'wait' then
  why, till = ARGV[13], now + tonumber(ARGV[14])
  if text ~= '' then
    save('error', text)
    failed = 1
  end
  if why == 'not_ready' then uncount() end
else
  paused = '1'
  save('paused', text)
end
if ARGV[8] == '1' then
  version = version + 1
  save('json', ARGV[9])
  save('shape', ARGV[10])
end
-- A redriven letter may stand before what was handed out: the head moves only over what was settled there.
if head == from then head = head + settled
elseif settled > 0 then
  local between = bodies(head, from - head)
  for i, value in ipairs(between) do
    local seq = from + settled - #between + i - 1
    save(int(seq), value)
    fresh[seq] = value
  end
  for seq = head, math.min(head + settled, from) - 1 do drop[#drop + 1] = int(seq) end
  head = head + settled
end
if settled > 0 then deliveries, charged = 0, 0 end
from, count = nil, 0
limit = math.max(1, tonumber(ARGV[7]))
fence, commit = fence + 1, ARGV[2]
local at = 19 + acked
for _ = 1, own do
  append(ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3], math.huge)
  at = at + 4
end
if sends > 0 then
  local n = math.max(now_us, tonumber(redis.call('HGET', KEYS[7], 'sent') or 0))
  for _ = 1, sends do
    n = n + 1
    extra[#extra + 1] = {'RPUSH', KEYS[tonumber(ARGV[at])], int(n) .. '\0' .. ARGV[at + 2]}
    extra[#extra + 1] = {'SADD', KEYS[8], ARGV[at + 1]}
    at = at + 3
  end
  extra[#extra + 1] = {'HSET', KEYS[7], 'sent', int(n)}
end
local values = tonumber(ARGV[6]) > 0 and is_ready() and hand_out(tonumber(ARGV[6]))
if values then deadline = now + tonumber(ARGV[5]) else unlock() end
flush()
if values then return {'C', batch(values)} end
return released()
