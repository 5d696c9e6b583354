-- ARGV 2 limit. What is due is promoted here on paper only: nothing is flushed.
if not load() then return {} end
local most, before = ARGV[2], nil
repeat before = unparks; promote() until queued >= most or unparks == before
local found, at = {}, head
while at < tail and most > 0 do
  local some, n = parcels(at, at == head and skip or 0, most)
  for _, parcel in ipairs(some) do found[#found + 1] = parcel end
  at, most = at + math.max(1, #some), most - n
end
return found
