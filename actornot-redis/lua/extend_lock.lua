-- ARGV 2 nonce  3 lease ms
if not load() or not is_mine(ARGV[2]) then return 0 end
deadline = now + ARGV[3]
flush()
return 1
