-- ARGV 2 backlog limit  3 nonce or ''  4 lease ms  5 max batch  6.. for each message: id, delay ms, retention ms, body
local ids, admissions = {}, {}
for i = 6, math.min(#ARGV, 4000), 4 do ids[#ids + 1] = ARGV[i] end
load(ids)
known = 1
promote()
for i = 6, #ARGV, 4 do
  admissions[#admissions + 1] =
    append(ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), ARGV[i + 3], tonumber(ARGV[2]))
end
local granted = ARGV[3] ~= '' and lock(ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]))
flush()
return {table.concat(admissions), granted}
