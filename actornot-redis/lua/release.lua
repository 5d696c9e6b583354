-- ARGV 2 nonce
if not load() or not is_mine(ARGV[2]) then return 0 end
uncount()
unlock()
flush()
return 1
