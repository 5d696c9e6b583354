-- ARGV 2 backlog limit  3 nonce or ''  4 lease ms  5 max batch  6 how many messages  7.. these
local counters = {}
for i = 1, ARGV[6] do counters[i] = 'i' .. ARGV[3 + 4 * i] end
load(counters)
known = 1
promote()
local admissions = append_all(7, ARGV[6], ARGV[2])
local granted = ARGV[3] ~= '' and lock(ARGV[3], ARGV[4], ARGV[5])
flush()
return {table.concat(admissions), granted}
