if not load() or known ~= 1 then return 0 end
paused, why, till, deliveries, charged = 0, '', nil, 0, 0
erase('paused')
flush()
return 1
