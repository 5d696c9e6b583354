-- KEYS as redrive
if not load() or known ~= 1 then return 0 end
local numbers = {}
for _, list in ipairs(redis.call('HVALS', KEYS[6])) do
  for number in string.gmatch(list, '%d+') do numbers[#numbers + 1] = number end
end
-- What goes on: the fence, the numbers, the last commit, and until when ids are remembered.
local found = {math.max(now, fence + 1), tail, parked, commit, seen_until, was_wake}
reset()
fence, head, tail, parked, commit, seen_until, was_wake = found[1], found[2], found[2], unpack(found, 3, 6)
known = 0
-- What is written from here on stands in a new hash.
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[6])
redis.call('ZREM', KEYS[5], ARGV[1])
many('HDEL', KEYS[7], numbers, #numbers)
many('ZREM', KEYS[8], numbers, #numbers)
flush()
return 1
