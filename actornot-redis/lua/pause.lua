-- ARGV 2 reason
load()
known, paused = 1, '1'
put = {'paused', ARGV[2]}
flush()
return 1
