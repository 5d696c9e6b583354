-- state json, version, state_version, pending, fence, lease left ms, why it waits, for how many ms, why it is paused,
-- last error, deliveries, charged, batch limit; false where there is none
local r = load()
if not r or r.known ~= 1 then return false end
local s = redis.call('HMGET', KEYS[5], 'json', 'shape', 'error', 'paused')
local waits = r['until'] and now < r['until']
return {s[1], s[1] and r.version, s[2], int(queued(r) + r.delayed), int(r.fence),
  r.deadline and int(is_leased(r) and r.deadline - now or 0) or false,
  waits and (r.why or 'backoff') or false, waits and int(r['until'] - now) or false,
  r.paused and (s[4] or '') or false, s[3], r.deliveries, r.charged, int(r.limit)}
