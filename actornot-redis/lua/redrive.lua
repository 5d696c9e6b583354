-- KEYS 7 dead of the entity  8 letters of the kind  9 letters in order     ARGV 2 number  3 head|tail
local letter = redis.call('HGET', KEYS[8], ARGV[2])
if not letter or not load() then return 0 end
local a = string.find(letter, '\0', 1, true)
local b = string.find(letter, '\0', a + 1, true)
local c = string.find(letter, '\0', b + 1, true)
local value = string.sub(letter, c + 1 + tonumber(string.sub(letter, b + 1, c - 1)))
if string.sub(letter, 1, a - 1) ~= ARGV[1] then return 0 end
local id = string.sub(value, 1, string.find(value, '\0', 1, true) - 1)
change[id] = 1
promote()
if ARGV[3] == 'head' and tail > head then
  head = head - 1
  put[#put + 1] = int(head)
  put[#put + 1] = value
  -- A new head has not been handed out yet; also while a run of the old head is under way, for a run that fails
  -- would leave its attempts to whoever is the head.
  deliveries, charged = 0, 0
else enter(value) end
local others = {}
for number in string.gmatch(redis.call('HGET', KEYS[7], id) or '', '%d+') do
  if number ~= ARGV[2] then others[#others + 1] = number end
end
extra = {{'HDEL', KEYS[8], ARGV[2]}, {'ZREM', KEYS[9], ARGV[2]},
  #others > 0 and {'HSET', KEYS[7], id, table.concat(others, ' ')} or {'HDEL', KEYS[7], id}}
flush()
return 1
