-- KEYS 6 partition record of the target   ARGV 2 source partition  3 number  4 the number sent before it, 0 = first of its channel
--      5.. a parcel
local field = 'from:' .. ARGV[2]
local last = tonumber(redis.call('HGET', KEYS[6], field) or 0)
if ARGV[3] <= last then return 0 end
if ARGV[4] > last then return -1 end
load()
known = 1
promote()
append_all(5, 1, math.huge)
call_later('HSET', KEYS[6], field, ARGV[3])
flush()
return 1
