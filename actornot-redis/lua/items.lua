-- One item after the other. What fails in one is its own answer, and the next goes on.
local answers, key, arg = {}, 0, 0
while arg < #all_args do
  local keys, args = tonumber(all_args[arg + 1]), tonumber(all_args[arg + 2])
  arg, KEYS, ARGV = arg + 2, {}, {}
  for i = 1, keys do KEYS[i] = all_keys[key + i] end
  for i = 1, args do ARGV[i] = all_args[arg + i] end
  key, arg = key + keys, arg + args
  reset()
  local fine, answer = pcall(verb)
  if not fine and type(answer) ~= 'table' then answer = redis.error_reply('ERR ' .. tostring(answer)) end
  answers[#answers + 1] = answer or false
end
return answers
