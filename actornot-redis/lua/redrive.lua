-- KEYS 6 dead of the entity  7 letters of the kind  8 letters in order     ARGV 2 number  3 head|tail
local redriven = int(ARGV[2])
local letter = redis.call('HGET', KEYS[7], redriven)
if not letter then return 0 end
local a = string.find(letter, '\0', 1, true)
local b = string.find(letter, '\0', a + 1, true)
local c = string.find(letter, '\0', b + 1, true)
local value = string.sub(letter, c + 1 + tonumber(string.sub(letter, b + 1, c - 1)))
local id = string.sub(value, 1, string.find(value, '\0', 1, true) - 1)
if string.sub(letter, 1, a - 1) ~= ARGV[1] or not load() then return 0 end
local parcel = struct.pack('<I2I4', 1, #value) .. value
promote()
if ARGV[3] == 'head' and tail > head then
  if skip > 0 then
    local rest, _, more = parcels(head, skip, 1)
    rest = more > 0 and parcels(head, skip, more + 1) or rest
    if rest[1] then replace(head, rest[1]) end
    skip = 0
  end
  head = head - 1
  queued = queued + 1
  replace(head, parcel)
  -- A new head has not been handed out yet; also while a run of the old head is under way, for a run that fails
  -- would leave its attempts to whoever is the head.
  deliveries, charged = 0, 0
else enter(parcel) end
-- It stands where nobody would look for it.
local score = redis.call('ZMSCORE', KEYS[4], id)[1]
if score then call_later('ZADD', KEYS[4], int(score - score % SEEN), id) end
local others = {}
for number in string.gmatch(redis.call('HGET', KEYS[6], id) or '', '%d+') do
  if number ~= redriven then others[#others + 1] = number end
end
call_later('HDEL', KEYS[7], redriven)
call_later('ZREM', KEYS[8], redriven)
if #others > 0 then call_later('HSET', KEYS[6], id, table.concat(others, ' ')) else call_later('HDEL', KEYS[6], id) end
flush()
return 1
