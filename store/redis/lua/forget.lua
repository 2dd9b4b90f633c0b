-- forget drops producers whose last append was so many microseconds ago, at most most
-- of them, and returns how many.
local function forget(remembered, most)
  local old = redis.call('ZRANGEBYSCORE', PRODUCERS, '-inf', str(now - remembered), 'LIMIT', 0, most)
  for _, member in ipairs(old) do
    local length, rest = string.match(member, '^(%d+):(.*)$')
    local c, id = channel(string.sub(rest, 1, length)), string.sub(rest, length + 1)
    local known = redis.call('HGET', c.producers, id)
    if known then
      local owner = string.match(known, '^%d+ %d+ %d+ (.*)$')
      redis.call('HDEL', c.producers, id)
      if redis.call('EXISTS', c.meta) == 1 then redis.call('HINCRBY', c.meta, 'producers', -1) end
      if redis.call('HINCRBY', OWNERS, owner, -1) <= 0 then redis.call('HDEL', OWNERS, owner) end
    end
    redis.call('ZREM', PRODUCERS, member)
  end
  return #old
end
