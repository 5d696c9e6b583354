-- ARGV 2 limit. What is due is promoted here on paper only: nothing is flushed.
local r = load()
if not r then return {} end
local limit, before = tonumber(ARGV[2]), nil
repeat before = #unpark; promote(r) until queued(r) >= limit or #unpark == before
local found = {}
for _, value in ipairs(bodies(r.head, math.min(limit, queued(r)))) do
  if value then found[#found + 1] = value end
end
return found
