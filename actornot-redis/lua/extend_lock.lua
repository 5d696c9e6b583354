-- ARGV 2 nonce  3 lease ms
local r = load()
if not r or not is_mine(r, ARGV[2]) then return 0 end
r.deadline = now + tonumber(ARGV[3])
flush(r)
return 1
