-- One item after the other. What fails in one is its own answer, and the next goes on.
local answers, before = {}, 0
for i = 1, #items, 2 do
  local keys = items[i]
  ARGV = items[i + 1]
  for k = 1, keys do KEYS[k] = all_keys[before + k] end
  before = before + keys
  reset()
  local fine, answer = pcall(verb)
  if not fine and type(answer) ~= 'table' then answer = redis.error_reply('ERR ' .. tostring(answer)) end
  answers[#answers + 1] = answer or false
end
return answers
