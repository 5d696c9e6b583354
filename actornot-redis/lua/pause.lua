-- ARGV 2 reason
local r = load() or new()
r.known = 1
r.paused = '1'
extra = {{'HSET', KEYS[5], 'paused', ARGV[2]}}
flush(r)
return 1
