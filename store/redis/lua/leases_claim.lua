-- ARGV[4..9]: the lease's name, its line, for how long, its channels, one per
-- line, how many leases there may be, the subject. ARGV[10]: the info, if any.
-- Returns 1; 2: there are too many; 0: there was more to clear away.

if sweep() then
  return 0
end
local lease, line, lasts, names, most, subject, info = unpack(ARGV, 4)
local key = tag .. 's:' .. lease
local old = redis.call('HMGET', key, 'line', 'channels', 'there')
if old[1] and old[1] > line then
  return 1
end
if not old[1] and redis.call('ZCARD', due) >= tonumber(most) then
  return 2
end
local listed = old[3] == '1' and old[2] == names
if old[3] == '1' and not listed then
  unlist(lease, old[2])
end
redis.call('DEL', key)
redis.call('HSET', key, 'line', line, 'renewed', digits(now), 'lasts', lasts, 'channels', names, 'there', '1', 'subject', subject)
if info then
  redis.call('HSET', key, 'info', info)
end
redis.call('ZADD', due, digits(now + tonumber(lasts)), lease)
if not listed then
  list(lease, names)
end
return 1
