-- KEYS 6 dead of the entity    ARGV 2.. ids. 2 queued or delayed, 1 dead, 0 neither
local found = {}
for i = 2, #ARGV do
  if redis.call('HEXISTS', KEYS[1], 'i' .. ARGV[i]) == 1 then found[#found + 1] = 2
  else found[#found + 1] = redis.call('HEXISTS', KEYS[6], ARGV[i]) end
end
return found
