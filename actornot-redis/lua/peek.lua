-- ARGV 2 limit. What is due is promoted here on paper only: nothing is flushed.
if not load() then return {} end
local most, before = ARGV[2], nil
repeat before = unparks; promote() until queued() >= most or unparks == before
local found = {}
for _, value in ipairs(bodies(head, math.min(most, queued()))) do
  if value then found[#found + 1] = value end
end
return found
