local r = load()
if not r or r.known ~= 1 then return 0 end
r.paused, r.why, r['until'] = nil, nil, nil
r.deliveries, r.charged = 0, 0
extra = {{'HDEL', KEYS[5], 'paused'}}
flush(r)
return 1
