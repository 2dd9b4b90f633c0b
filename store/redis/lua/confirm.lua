-- confirm lets readers read up to an event of which it is known by now that enough
-- replicas have it, and all before it.
-- ARGV: 3 its offset, 4 its mark: after a failover that may be another event.
local c = channel(ARGV[1])
local m = load(c)
local offset, mark = tonumber(ARGV[3]), tonumber(ARGV[4])
if not m or not m.readable or m.readable >= offset or offset > m.head then return {'ok'} end
local known = m.mark
if offset < m.head then
  local e = entry(c, offset)
  known = e and e.mark
end
if known == mark then
  redis.call('HSET', c.meta, 'readable', str(offset))
  redis.call('PUBLISH', c.bell, '')
end
return {'ok'}
