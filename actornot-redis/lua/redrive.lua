-- KEYS 9 dead of the entity  10 letters of the kind  11 letters in order     ARGV 2 number  3 head|tail
local letter = redis.call('HGET', KEYS[10], ARGV[2])
local r = load()
if not letter or not r then return 0 end
local a = string.find(letter, '\0', 1, true)
local b = string.find(letter, '\0', a + 1, true)
local c = string.find(letter, '\0', b + 1, true)
local value = string.sub(letter, c + 1 + tonumber(string.sub(letter, b + 1, c - 1)))
if string.sub(letter, 1, a - 1) ~= ARGV[1] then return 0 end
local id = id_of(value)
came[#came + 1] = id
promote(r)
if ARGV[3] == 'head' and queued(r) > 0 then
  r.head = r.head - 1
  put[#put + 1] = int(r.head)
  put[#put + 1] = value
  -- A new head has not been handed out yet; also while a run of the old head is under way, for a run that fails
  -- would leave its attempts to whoever is the head.
  r.deliveries, r.charged = 0, 0
else enter(r, value) end
local others = {}
for number in string.gmatch(redis.call('HGET', KEYS[9], id) or '', '%d+') do
  if number ~= ARGV[2] then others[#others + 1] = number end
end
extra = {{'HDEL', KEYS[10], ARGV[2]}, {'ZREM', KEYS[11], ARGV[2]},
  #others > 0 and {'HSET', KEYS[9], id, table.concat(others, ' ')} or {'HDEL', KEYS[9], id}}
flush(r)
return 1
