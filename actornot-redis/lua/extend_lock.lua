-- ARGV 2 nonce  3 lease ms
if not load() or not is_mine(ARGV[2]) then return 0 end
deadline = now + tonumber(ARGV[3])
flush()
return 1
