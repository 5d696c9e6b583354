-- ARGV 2 reason
local r = load()
if r then r.was_known = r.known else r = new() end
r.known = 1
r.paused = '1'
extra = {{'HSET', KEYS[5], 'paused', ARGV[2]}}
flush(r)
return 1
