-- KEYS[1]: the secret. ARGV[1]: one to begin with.
-- Returns the one that all get.

local secret = redis.call('GET', KEYS[1])
if not secret then
  secret = ARGV[1]
  redis.call('SET', KEYS[1], secret)
end
return secret
