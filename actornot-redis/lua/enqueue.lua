-- ARGV 2 backlog limit  3 nonce or ''  4 lease ms  5 max batch  6.. for each message: id, delay ms, retention ms, body
local r = load() or new()
r.known = 1
promote(r)
local admissions = {}
for i = 6, #ARGV, 4 do
  admissions[#admissions + 1] =
    append(r, ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), ARGV[i + 3], tonumber(ARGV[2]))
end
local granted = ARGV[3] ~= '' and lock(r, ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]))
flush(r)
return {table.concat(admissions), granted}
