-- ARGV 2 nonce
local r = load()
if not r or not is_mine(r, ARGV[2]) then return 0 end
r.was_known = r.known
uncount(r)
unlock(r)
flush(r)
return 1
