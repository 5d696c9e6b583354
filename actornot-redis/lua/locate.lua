-- KEYS 6 dead of the entity    ARGV 2.. ids. 2 queued or delayed, 1 dead, 0 neither
local open, places, anywhere, is_queued = {}, {}, false, {}
if load() and queued + delayed > 0 then
  for i = 2, #ARGV, 1000 do
    local last = math.min(#ARGV, i + 999)
    for j, score in ipairs(redis.call('ZMSCORE', KEYS[4], unpack(ARGV, i, last))) do
      local place = score and tonumber(score) % SEEN or 0
      if place > 0 then places[place] = true else anywhere = true end
      open[ARGV[i + j - 1]] = true
    end
  end
end
local fields = {}
if anywhere then
  -- Ids that nobody remembers any more, and those that were delayed or redriven: all that is there is looked through.
  for number = head, tail - 1 do fields[#fields + 1] = number end
  for _, name in ipairs(delayed > 0 and redis.call('ZRANGE', KEYS[2], 0, -1) or {}) do fields[#fields + 1] = 'd' .. name end
else
  for place in pairs(places) do
    for number = head + (place - 1 - head) % PLACES, tail - 1, PLACES do fields[#fields + 1] = number end
  end
end
for first = 1, #fields, 1000 do
  for i, parcel in ipairs(redis.call('HMGET', KEYS[1], unpack(fields, first, math.min(#fields, first + 999)))) do
    local settled = fields[first + i - 1] == head and skip or 0
    local at = parcel and pass(parcel, 3, settled)
    for _ = 1, parcel and size(parcel) - settled or 0 do
      local id = string.sub(parcel, at + 4, string.find(parcel, '\0', at + 4, true) - 1)
      if open[id] then is_queued[id] = true end
      at = pass(parcel, at, 1)
    end
  end
end
local found = {}
for i = 2, #ARGV do
  found[#found + 1] = is_queued[ARGV[i]] and 2 or redis.call('HEXISTS', KEYS[6], ARGV[i])
end
return found
