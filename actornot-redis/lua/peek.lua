-- ARGV 2 limit. What is due is promoted here on paper only: nothing is flushed.
local r = load()
if not r then return {} end
promote(r)
local found = {}
for _, value in ipairs(bodies(r.head, math.min(tonumber(ARGV[2]), queued(r)))) do
  if value then found[#found + 1] = value end
end
return found
