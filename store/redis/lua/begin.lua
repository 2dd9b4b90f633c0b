-- begin makes a bucket's first generation, if there is none.
-- ARGV: 3 and 4 fresh secrets.
if redis.call('HSETNX', GENERATION, 'number', 1) == 1 then
  redis.call('HSET', GENERATION, 'secret', ARGV[3], 'before', ARGV[4], 'rose', str(now), 'counted', str(now))
end
return {'ok'}
