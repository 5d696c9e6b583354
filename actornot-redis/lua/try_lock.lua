-- ARGV 2 nonce  3 lease ms  4 max batch
local r = load()
if not r then return false end
promote(r)
local granted = lock(r, ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]))
if granted or #put > 0 or #unpark > 0 or r.mended then flush(r) end
return granted
