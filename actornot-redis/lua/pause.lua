-- ARGV 2 reason
load()
known, paused = 1, 1
save('paused', ARGV[2])
flush()
return 1
