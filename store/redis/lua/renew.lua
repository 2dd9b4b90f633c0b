-- renew keeps the name of an empty channel that somebody watches for one generation more.
local c = channel(ARGV[1])
local g = generation()
if g and redis.call('EXISTS', c.meta) == 1 then
  redis.call('HSET', c.meta, 'written', str(g.number))
  redis.call('ZADD', EMPTY, 'XX', str(g.number), c.name)
end
return {'ok'}
