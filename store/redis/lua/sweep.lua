-- sweep clears a bucket of what is too old, a piece at a time, and lets the generation
-- rise when it is time. It returns whether there is more to do now, and whether it rose.
-- ARGV: 3 and 4 fresh secrets; 5 for how many microseconds a generation lasts; 6 how many
-- names without events may wait for its end, or it comes sooner; 7 for how many
-- microseconds producers are remembered; 8 how much to do.
local most = tonumber(ARGV[8])
local g = generation()
if not g then return {'swept', 0, 0} end

local due = redis.call('ZRANGEBYSCORE', AGING, '-inf', str(now), 'LIMIT', 0, most)
for _, name in ipairs(due) do
  local c = channel(name)
  local m = load(c)
  if not m then
    redis.call('ZREM', AGING, name)
  else
    local from = m.base
    advance(c, m, most * 10)
    if m.base == m.head then
      redis.call('DEL', c.events)
      redis.call('ZREM', AGING, name)
      redis.call('ZADD', EMPTY, str(m.written), name)
    else
      if m.base > from then
        redis.call('XTRIM', c.events, 'MINID', str(m.base + 1))
        local first = redis.call('XRANGE', c.events, '-', '+', 'COUNT', 1)[1]
        if first then m.oldest = parse(first).time end
      end
      redis.call('ZADD', AGING, str(m.oldest + math.max(m.age, 0)), name)
    end
    redis.call('HSET', c.meta, 'base', str(m.base), 'basemark', str(m.basemark), 'basesum', str(m.basesum), 'oldest', str(m.oldest))
  end
end
local forgotten = forget(tonumber(ARGV[7]), most)

-- Names go in the step that raises the generation: those written last before it rose
-- the last time, of which no producer is remembered.
local rose = 0
local times = redis.call('HMGET', GENERATION, 'rose', 'counted')
local many = redis.call('ZCARD', EMPTY) >= tonumber(ARGV[6]) and now - tonumber(times[2]) >= 60000000
if many or now - tonumber(times[1]) >= tonumber(ARGV[5]) then
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', EMPTY, '-inf', '(' .. str(g.number))) do
    local c = channel(name)
    if tonumber(redis.call('HGET', c.meta, 'producers') or 0) == 0 then
      redis.call('DEL', c.meta, c.events, c.producers)
      redis.call('ZREM', EMPTY, name)
    end
  end
  redis.call('HSET', GENERATION, 'number', str(g.number + 1), 'secret', ARGV[3], 'before', g.secret, 'rose', str(now), 'counted', str(now))
  rose = 1
end
local more = 0
if #due == most or forgotten == most then more = 1 end
return {'swept', more, rose}
