-- KEYS 1 channels in use  then ready, locked for each kind   ARGV 1 limit  2 wake of the cursor or ''  3 key of the cursor
--      4 index of the cursor's kind (0 = first); kinds are in the order of their names
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local limit, wake, kind = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local reply, next = {}, -1
-- By bytes, as Redis orders what is due at the same moment. Lua's own < and > ask the locale of the server.
local function stands_behind(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x > y end
  end
  return #a > #b
end
local function page(key, index, top)
  local found, offset = {}, 0
  while #found < limit * 2 do
    local part = redis.call('ZRANGEBYSCORE', key, wake or '-inf', top, 'WITHSCORES', 'LIMIT', offset, limit)
    for i = 1, #part, 2 do
      local score = tonumber(part[i + 1])
      if not wake or score > wake or index > kind or (index == kind and stands_behind(part[i], ARGV[3])) then
        found[#found + 1] = part[i]
        found[#found + 1] = part[i + 1]
      end
    end
    if #part < limit * 2 then break end
    offset = offset + limit
  end
  return found
end
for i = 2, #KEYS do
  local index = math.floor(i / 2) - 1
  local far = {}
  if i % 2 == 1 and not wake then
    far = redis.call('ZRANGEBYSCORE', KEYS[i], '(' .. string.format('%.0f', now + 3600000), '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
  end
  reply[#reply + 1] = {page(KEYS[i], index, now), far}
  local later = redis.call('ZRANGEBYSCORE', KEYS[i], '(' .. string.format('%.0f', now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if later[2] and (next < 0 or tonumber(later[2]) - now < next) then next = tonumber(later[2]) - now end
end
return {now, next, redis.call('SMEMBERS', KEYS[1]), reply}
