-- KEYS 7 partition record of the target   ARGV 2 source partition  3 number  4 the number sent before it, 0 = first of its channel
--      5 id  6 delay ms  7 retention ms  8 body
local field = 'from:' .. ARGV[2]
local last = redis.call('HGET', KEYS[7], field) or '0'
local number, before = tonumber(ARGV[3]), tonumber(ARGV[4])
if number <= tonumber(last) then return 0 end
if before > tonumber(last) then return -1 end
load()
known = 1
promote()
append(ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], math.huge)
extra[#extra + 1] = {'HSET', KEYS[7], field, ARGV[3]}
flush()
return 1
