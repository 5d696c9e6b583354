-- ARGV 2 nonce  3 lease ms  4 max batch
if not load() then return false end
local first = head
promote()
local granted = lock(ARGV[2], ARGV[3], ARGV[4])
if granted or puts > 0 or unparks > 0 or head ~= first then flush() end
return granted
