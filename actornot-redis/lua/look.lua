-- state json, version, state_version, pending, fence, lease left ms, why it waits, for how many ms, why it is paused,
-- last error, deliveries, charged, batch limit; false where there is none
if not load() or known ~= 1 then return false end
local s = redis.call('HMGET', KEYS[1], 'json', 'shape', 'error', 'paused')
local waits = till and now < till
return {s[1], s[1] and version, s[2], int(queued + delayed), int(fence),
  deadline and int(is_leased() and deadline - now or 0) or false,
  waits and why or false, waits and int(till - now) or false,
  paused == 1 and (s[4] or '') or false, s[3], deliveries, charged, int(limit)}
