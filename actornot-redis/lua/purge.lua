-- KEYS as redrive
local r = load()
if not r or r.known ~= 1 then return 0 end
local numbers = {}
for _, list in ipairs(redis.call('HVALS', KEYS[9])) do
  for number in string.gmatch(list, '%d+') do numbers[#numbers + 1] = number end
end
local fresh_row = new()
fresh_row.fence = math.max(now, r.fence + 1)
fresh_row.head, fresh_row.tail, fresh_row.parked = r.tail, r.tail, r.parked
fresh_row.commit, fresh_row.known, fresh_row.seen_until = r.commit, 0, r.seen_until
fresh_row.was_known, fresh_row.was_locked, fresh_row.was_due = 0, r.was_locked, r.was_due
extra = {{'UNLINK', KEYS[2], KEYS[3], KEYS[5], KEYS[9]}, {'ZREM', KEYS[8], ARGV[1]}}
many('HDEL', KEYS[10], numbers, 1000)
many('ZREM', KEYS[11], numbers, 1000)
flush(fresh_row)
return 1
