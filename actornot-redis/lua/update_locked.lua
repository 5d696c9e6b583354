-- KEYS 6 partition record (hash)  7 channels in use (set); in front of the channels (lists), for a dead letter:
--      8 dead of the entity (hash id -> numbers)  9 letters of the kind (hash number -> letter)  10 letters in order (zset)
-- ARGV 2 commit id  3 nonce  4 fence  5 lease ms  6 max of the next batch, 0 = release  7 batch_limit
--      8 1 = new state  9 state  10 its shape's version  11 verdict: proceed|dead|wait|pause  12 its text
--      13 why  14 wait ms  15 partition  16 acked ids  17 number of parcels to itself  18 of sends
--      19.. the parcels; then index of KEYS, partition, blob for each send
local function released()
  local at = wake()
  if at and deadline then at = at + LOCKED end
  return {'R', at and math.max(0, at - now) or -1}
end
if not load() then return {'L'} end
if commit == ARGV[2] then
  if is_mine(ARGV[3]) and count > 0 then return {'C', batch((handed_out()))} end
  return released()
end
if not is_mine(ARGV[3]) or fence ~= ARGV[4] then return {'L'} end
local ids, own, sends = ARGV[16], ARGV[17], ARGV[18]
local verdict, text = ARGV[11], ARGV[12]
local settled = #ids + (verdict == 'dead' and 1 or 0)
if settled > count then
  return redis.error_reply('CONFLICT more is settled than was handed out')
end
-- The parcels of what is settled, and how many messages of the last one stay.
local first, handed, n, stay = skip_of_from(), {}, 0, 0
if settled > 0 then handed, n, stay = parcels(from, first, settled) end
if n < settled then return redis.error_reply('CONFLICT a message that was handed out is no longer stored') end
local seen_ids, letter = 0, nil
for _, parcel in ipairs(handed) do
  local at = 3
  for _ = 1, size(parcel) do
    local id, next = ids[seen_ids + 1], pass(parcel, at, 1)
    if not id then letter = string.sub(parcel, at + 4, next - 1)
    elseif string.find(parcel, id, at + 4, true) ~= at + 4 or string.byte(parcel, at + 4 + #id) ~= 0 then
      return redis.error_reply('CONFLICT the acknowledged ids are no prefix of what was handed out')
    end
    seen_ids, at = seen_ids + 1, next
  end
end

promote()
if verdict == 'proceed' or verdict == 'dead' then
  why, till = '', nil
  if verdict == 'dead' then
    local id = string.sub(letter, 1, string.find(letter, '\0', 1, true) - 1)
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
if settled > 0 then
  local gone = #handed - (stay > 0 and 1 or 0)
  for number = from, from + gone - 1 do erase(number) end
  local rest = stay > 0 and (gone == 0 and first or 0) + size(handed[#handed]) or 0
  -- Redriven letters may stand before what was handed out: they move up to what stays.
  if head < from then
    if rest > 0 then replace(from + gone, parcels(from + gone, rest, stay)[1]) end
    rest = 0
    local between = {}
    for number = head, from - 1 do between[#between + 1] = number end
    local letters = read(between, #between)
    for i = #between, 1, -1 do
      erase(between[i])
      if letters[i] then replace(between[i] + gone, letters[i]) end
    end
  end
  head, skip, queued = head + gone, rest, queued - settled
end
if settled > 0 then deliveries, charged = 0, 0 end
count = 0
limit = math.max(1, ARGV[7])
fence, commit = fence + 1, ARGV[2]
append_all(19, own, math.huge)
if sends > 0 then
  local n = math.max(now_us, tonumber(redis.call('HGET', KEYS[6], 'sent') or 0))
  local at = 19 + 4 * own
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
