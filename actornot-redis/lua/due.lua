-- KEYS 1 channels in use  then wake for each kind   ARGV 1 limit  2 wake of the cursor or ''  3 key of the cursor
--      4 index of the cursor's kind (0 = first); kinds are in the order of their names
-- For each kind: free and due, locked and due, locked until farther away than any lease.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local limit, wake, kind = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local LONGEST, LOCKED = 3600000, 4503599627370496
local reply, next = {}, -1
-- By bytes, as Redis orders what is due at the same moment. Lua's own < and > ask the locale of the server.
local function stands_behind(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x > y end
  end
  return #a > #b
end
-- Those that stand lower by `by`.
local function range(key, by, first, last, offset)
  local part = redis.call('ZRANGEBYSCORE', key, first, last, 'WITHSCORES', 'LIMIT', offset, limit)
  for i = 2, #part, 2 do part[i] = tonumber(part[i]) + by end
  return part
end
local function page(key, index, by)
  local found, offset = {}, 0
  while #found < limit * 2 do
    local part = range(key, by, (wake or 0) - by, now - by, offset)
    for i = 1, #part, 2 do
      if not wake or part[i + 1] > wake or index > kind or (index == kind and stands_behind(part[i], ARGV[3])) then
        found[#found + 1] = part[i]
        found[#found + 1] = part[i + 1]
      end
    end
    if #part < limit * 2 then break end
    offset = offset + limit
  end
  return found
end
local function soonest(key, by, last)
  local later = redis.call('ZRANGEBYSCORE', key, now + 1 - by, last, 'WITHSCORES', 'LIMIT', 0, 1)
  local left = later[2] and tonumber(later[2]) + by - now
  if left and (next < 0 or left < next) then next = left end
end
for i = 2, #KEYS do
  local far = wake and {} or range(KEYS[i], LOCKED, now + LONGEST + 1 - LOCKED, -1, 0)
  reply[#reply + 1] = {page(KEYS[i], i - 2, 0), page(KEYS[i], i - 2, LOCKED), far}
  soonest(KEYS[i], 0, '+inf')
  soonest(KEYS[i], LOCKED, -1)
end
return {next, redis.call('SMEMBERS', KEYS[1]), reply}
