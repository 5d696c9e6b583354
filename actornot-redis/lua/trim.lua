-- KEYS 1 channel  2 channels in use   ARGV 1 target partition  2 highest number that has arrived
local gone = 0
while true do
  local first = redis.call('LINDEX', KEYS[1], 0)
  if not first then redis.call('SREM', KEYS[2], ARGV[1]) break end
  if tonumber(string.sub(first, 1, string.find(first, '\0', 1, true) - 1)) > tonumber(ARGV[2]) then break end
  redis.call('LPOP', KEYS[1])
  gone = gone + 1
end
return gone
