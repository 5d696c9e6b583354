-- ARGV 2 nonce
local r = load()
if not r or not is_mine(r, ARGV[2]) then return 0 end
uncount(r)
unlock(r)
flush(r)
return 1
