-- What all scripts about leases begin with.
--
-- KEYS[1]: the leases of one bucket, by when each is to be looked at.
-- ARGV[1]: the time in microseconds, of tests; empty: the server's own.
-- ARGV[2]: how long a lease that ran out is still known.
-- ARGV[3]: how many steps the script may take, for others wait meanwhile.
--
-- The other keys differ from KEYS[1] in what follows the hash tag, so they are
-- where it is. They can't be named beforehand: which channels a lease is in is
-- only known here.
--
--   <tag>due                          leases, "<length>:<namespace>:<id>", by when to look
--   <tag>s:<length>:<namespace>:<id>  hash: one lease
--   <tag>c:<length>:<namespace>:<ch>  the ids that are present in a channel, all of score 0
--   <tag>gone                         what ended sessions, by when
--
-- Lines are strings of 20 digits: a number of Lua can't hold them, and strings
-- of one length compare alike. Times are numbers: they stay below 2^53.

local due = KEYS[1]
local tag = string.sub(due, 1, -4)
local remembered, steps = tonumber(ARGV[2]), tonumber(ARGV[3])

local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- digits is a time as Redis takes it: Lua itself would round it.
local function digits(time)
  return string.format('%.0f', time)
end

-- each_channel calls ZADD or ZREM for each channel of a lease.
local function each_channel(lease, names, command, ...)
  local length = string.match(lease, '^%d+')
  local space = #length + 1 + tonumber(length) + 1
  local channels, id = tag .. 'c:' .. string.sub(lease, 1, space), string.sub(lease, space + 1)
  local args = {...}
  args[#args + 1] = id
  for name in string.gmatch(names, '[^\n]+') do
    redis.call(command, channels .. name, unpack(args))
    steps = steps - 1
  end
end

local function list(lease, names)
  each_channel(lease, names, 'ZADD', 0)
end

local function unlist(lease, names)
  each_channel(lease, names, 'ZREM')
end

-- drop forgets a lease.
local function drop(lease, names, there)
  if there == '1' then
    unlist(lease, names)
  end
  redis.call('ZREM', due, lease)
  redis.call('DEL', tag .. 's:' .. lease)
end

-- look does to a lease whose time has come what there is to do.
local function look(lease)
  local key = tag .. 's:' .. lease
  local has = redis.call('HMGET', key, 'renewed', 'lasts', 'channels', 'there')
  local ends = (tonumber(has[1]) or 0) + (tonumber(has[2]) or 0)
  if ends > now then -- it was touched
    redis.call('ZADD', due, digits(ends), lease)
  elseif ends + remembered > now then
    if has[4] == '1' then
      unlist(lease, has[3])
      redis.call('HSET', key, 'there', '0')
    end
    redis.call('ZADD', due, digits(ends + remembered), lease)
  else
    drop(lease, has[3], has[4])
  end
end

-- sweep clears away what ran out, and reports whether there is more.
local function sweep()
  local some = 200
  local leases = redis.call('ZRANGEBYSCORE', due, '-inf', digits(now), 'LIMIT', 0, some)
  for _, lease in ipairs(leases) do
    if steps <= 0 then
      return true
    end
    look(lease)
    steps = steps - 1
  end
  return #leases == some or steps <= 0
end
