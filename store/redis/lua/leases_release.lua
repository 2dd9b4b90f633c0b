-- ARGV[4..7]: the lease's name, the line, for how long nobody may have renewed
-- it, and what this call is called, also when it is sent again because the
-- answer was lost. ARGV[8]: how long that is remembered.
-- Returns 1 if the call ended the session; 0: it did not; -1: there was more to
-- clear away.

if sweep() then
  return -1
end
local lease, line, idle, call = unpack(ARGV, 4)
local gone = tag .. 'gone'
local old = redis.call('ZRANGEBYSCORE', gone, '-inf', digits(now - tonumber(ARGV[8])), 'LIMIT', 0, 100)
if #old > 0 then
  redis.call('ZREM', gone, unpack(old))
end
if redis.call('ZSCORE', gone, call) then
  return 1
end
local has = redis.call('HMGET', tag .. 's:' .. lease, 'line', 'renewed', 'channels', 'there')
if not has[1] or has[1] > line then
  return 0
end
-- A goodbye is one even if the clock was set back since.
idle = tonumber(idle)
if idle > 0 and now - tonumber(has[2]) < idle then
  return 0
end
drop(lease, has[3], has[4])
redis.call('ZADD', gone, digits(now), call)
return 1
