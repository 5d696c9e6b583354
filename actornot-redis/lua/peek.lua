-- ARGV 2 limit. What is due is promoted here on paper only: nothing is flushed.
if not load() then return {} end
local most, before = tonumber(ARGV[2]), nil
repeat before = #unpark; promote() until queued() >= most or #unpark == before
local found = {}
for _, value in ipairs(bodies(head, math.min(most, queued()))) do
  if value then found[#found + 1] = value end
end
return found
