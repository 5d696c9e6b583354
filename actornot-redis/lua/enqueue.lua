-- ARGV 2 backlog limit  3 nonce or ''  4 lease ms  5 max batch  6 how many parcels  7.. these
load()
known = 1
promote()
local letters = append_all(7, ARGV[6], ARGV[2])
local granted = ARGV[3] ~= '' and lock(ARGV[3], ARGV[4], ARGV[5])
flush()
return {letters, granted}
