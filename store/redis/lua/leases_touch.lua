-- ARGV[4..]: leases, each a name and then a line.
-- Returns how many of them were done, of those that come first, and which of
-- these, from 0 on, are missing.

local reply = {0}
if sweep() then
  return reply
end
for i = 4, #ARGV, 2 do
  local lease, line = ARGV[i], ARGV[i + 1]
  local key = tag .. 's:' .. lease
  local has = redis.call('HMGET', key, 'line', 'there', 'lasts', 'channels')
  if not has[1] or has[1] < line then
    reply[#reply + 1] = reply[1]
  elseif has[1] == line then
    redis.call('HSET', key, 'renewed', digits(now), 'there', '1')
    if has[2] ~= '1' then -- it was put back for when it is forgotten
      redis.call('ZADD', due, digits(now + tonumber(has[3])), lease)
      list(lease, has[4])
    end
  end
  reply[1] = reply[1] + 1
  steps = steps - 1
  if steps <= 0 then
    break
  end
end
return reply
