-- ARGV[4..7]: the namespace as "<length>:<namespace>:", the channel, from which
-- id on, as ZRANGEBYLEX has it, and how many.
-- Returns how many are present, and an id, a subject and an info for each; or
-- nothing, if there was more to clear away.

if sweep() then
  return {}
end
local space, name, from, most = unpack(ARGV, 4)
local channel = tag .. 'c:' .. space .. name
local reply = {0}
if tonumber(most) > 0 then
  for _, id in ipairs(redis.call('ZRANGEBYLEX', channel, from, '+', 'LIMIT', 0, most)) do
    local has = redis.call('HMGET', tag .. 's:' .. space .. id, 'subject', 'info')
    local n = #reply
    reply[n + 1], reply[n + 2], reply[n + 3] = id, has[1], has[2]
  end
end
reply[1] = redis.call('ZCARD', channel)
return reply
