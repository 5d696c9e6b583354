-- ARGV 2 nonce  3 lease ms  4 max batch
if not load() then return false end
local first = head
promote()
local granted = lock(ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]))
if granted or #put > 0 or #unpark > 0 or head ~= first then flush() end
return granted
