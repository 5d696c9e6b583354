-- KEYS 6 partition record (hash)  7 channels in use (set); in front of the channels (lists), for a dead letter:
--      8 dead of the entity (hash id -> numbers)  9 letters of the kind (hash number -> letter)  10 letters in order (zset)
-- ARGV 2 commit id  3 nonce  4 fence  5 lease ms  6 max of the next batch, 0 = release  7 batch_limit
--      8 1 = new state  9 state  10 its shape's version  11 verdict: proceed|dead|wait|pause  12 its text
--      13 why  14 wait ms  15 partition  16 number of acked ids  17 number of messages to itself  18 of sends
--      19.. acked ids; then those to itself; then index of KEYS, partition, blob for each send
local function released()
  local at = wake()
  if at and deadline then at = at + LOCKED end
  return {'R', at and math.max(0, at - now) or -1}
end
if not load() then return {'L'} end
if commit == ARGV[2] then
  if is_mine(ARGV[3]) and count > 0 then return {'C', batch(bodies(from, count))} end
  return released()
end
if not is_mine(ARGV[3]) or fence ~= ARGV[4] then return {'L'} end
local acked, own, sends = ARGV[16], ARGV[17], ARGV[18]
local verdict, text = ARGV[11], ARGV[12]
local settled = acked + (verdict == 'dead' and 1 or 0)
if settled > count then
  return redis.error_reply('CONFLICT more is settled than was handed out')
end
local counters = {}
for i = 1, acked do counters[i] = 'i' .. ARGV[18 + i] end
for i = 1, own do counters[acked + i] = 'i' .. ARGV[15 + acked + 4 * i] end
local handed, found = bodies(from, settled, counters)
for i = 1, settled do
  local value, id = handed[i], i <= acked and ARGV[18 + i]
  if not value then return redis.error_reply('CONFLICT a message that was handed out is no longer stored') end
  if id and (string.byte(value, #id + 1) ~= 0 or string.sub(value, 1, #id) ~= id) then
    return redis.error_reply('CONFLICT the acknowledged ids are no prefix of what was handed out')
  end
end

promote()
note(counters, found, acked + own)
for i = 1, acked do
  erase(from + i - 1)
  count_id(counters[i], -1)
end
if verdict == 'proceed' or verdict == 'dead' then
  why, till = '', nil
  if verdict == 'dead' then
    local letter = handed[settled]
    local id = string.sub(letter, 1, string.find(letter, '\0', 1, true) - 1)
    local counter = 'i' .. id
    if not counts[counter] then counts[counter] = tonumber(read({counter}, 1)[1]) or 0 end
    erase(from + acked)
    count_id(counter, -1)
    local n = math.max(tonumber(redis.call('HGET', KEYS[6], 'dead') or 0) + 1, now)
    local number = int(n * 1024 + ARGV[15])
    local before = redis.call('HGET', KEYS[8], id)
    call_later('HSET', KEYS[6], 'dead', n)
    call_later('HSET', KEYS[9], number, ARGV[1] .. '\0' .. deliveries .. '\0' .. #text .. '\0' .. text .. letter)
    call_later('ZADD', KEYS[10], number, number)
    call_later('HSET', KEYS[8], id, before and before .. ' ' .. number or number)
    save('error', text)
    failed = 1
  elseif failed == 1 then
    erase('error')
    failed = 0
  end
elseif verdict == 'wait' then
  why, till = ARGV[13], now + ARGV[14]
  if text ~= '' then
    save('error', text)
    failed = 1
  end
  if why == 'not_ready' then uncount() end
else
  paused = 1
  save('paused', text)
end
if ARGV[8] == 1 then
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
    save(seq, value)
    fresh = fresh or {}
    fresh[seq] = value
  end
  for seq = head, math.min(head + settled, from) - 1 do erase(seq) end
  head = head + settled
end
if settled > 0 then deliveries, charged = 0, 0 end
count = 0
limit = math.max(1, ARGV[7])
fence, commit = fence + 1, ARGV[2]
append_all(19 + acked, own, math.huge)
if sends > 0 then
  local n = math.max(now_us, tonumber(redis.call('HGET', KEYS[6], 'sent') or 0))
  local at = 19 + acked + 4 * own
  for _ = 1, sends do
    n = n + 1
    call_later('RPUSH', KEYS[ARGV[at]], int(n) .. '\0' .. ARGV[at + 2])
    call_later('SADD', KEYS[7], ARGV[at + 1])
    at = at + 3
  end
  call_later('HSET', KEYS[6], 'sent', n)
end
local values = ARGV[6] > 0 and is_ready() and hand_out(ARGV[6])
if values then deadline = now + ARGV[5] else unlock() end
flush()
if values then return {'C', batch(values)} end
return released()
