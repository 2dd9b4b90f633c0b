-- What all scripts share. KEYS[1] is the key of a bucket, with its hash tag; all
-- other keys begin with it, so they are in one slot. ARGV[1] is a channel, or ''.
-- ARGV[2] is the time, in microseconds, and '' but in tests: the time is this
-- server's, so that nodes whose clocks differ agree.
--
-- No script says no-writes, also those that only read: Redis refuses such a script
-- on a replica, and on a primary that has fewer good replicas than its
-- min-replicas-to-write. So nobody takes an answer of one that is behind, or that
-- was replaced, for the truth.

local bucket, now = KEYS[1], tonumber(ARGV[2])
if not now then
  local t = redis.call('TIME')
  now = t[1] * 1000000 + t[2]
end

local GENERATION = bucket .. ':generation' -- hash: number, secret, before, rose, counted, log
local EMPTY = bucket .. ':empty'           -- sorted set: channels without events, by the generation of their last write
local AGING = bucket .. ':aging'           -- sorted set: channels with events, by when the oldest may be too old
local PRODUCERS = bucket .. ':producers'   -- sorted set: producers, by the time of their last append
local OWNERS = bucket .. ':owners'         -- hash: how many of them each owner has

-- str writes a number in full, as tostring does not.
local function str(n) return string.format('%.0f', n) end

-- channel names the keys of a channel.
local function channel(name)
  return {
    name = name,
    meta = bucket .. ':meta:' .. name,           -- hash, see FIELDS
    events = bucket .. ':events:' .. name,       -- stream, by offset
    producers = bucket .. ':publishers:' .. name, -- hash: of each producer its last number, and where it is
    bell = bucket .. ':bell:' .. name,           -- a message here says that there may be something new
  }
end

-- What outlives a channel's events. Sums are of the bytes ever appended.
local FIELDS = {
  'head', 'mark', 'sum',             -- the last event
  'base', 'basemark', 'basesum',     -- the last that was trimmed, or the place before the first
  'birth', 'birthbefore',            -- the marks of that place which are exact
  'time', 'oldest',                  -- of the last event; of the oldest kept, or before that
  'written',                         -- the generation of the last write
  'age',                             -- how long events are kept, or -1
  'producers',                       -- how many are remembered
  'readable',                        -- up to where, if that is not the head: see confirm.lua
}

local function load(c)
  local values = redis.call('HMGET', c.meta, unpack(FIELDS))
  if not values[1] then return nil end
  local m, was = {}, {}
  for i, field in ipairs(FIELDS) do
    local value = tonumber(values[i])
    m[field], was[field] = value, value
  end
  m.producers = m.producers or 0
  m.was = was -- what is there
  return m
end

-- parse reads an entry of a stream: its id is the offset, its header says the rest.
local function parse(raw)
  local mark, prev, time, sum, size = string.match(raw[2][2], '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  return {
    offset = tonumber(string.match(raw[1], '^%d+')), mark = tonumber(mark), prev = tonumber(prev),
    time = tonumber(time), sum = tonumber(sum), size = tonumber(size), header = raw[2][2], body = raw[2][4],
  }
end

local function entry(c, offset)
  local found = redis.call('XRANGE', c.events, str(offset), str(offset))
  return found[1] and parse(found[1])
end

-- at tells the position and the sum of an offset: if somebody took its entry out of the
-- stream, by the one after it; else nil.
local function at(c, m, offset)
  if offset == m.base then return m.base, m.basemark, m.basesum end
  local e = entry(c, offset)
  if e then return offset, e.mark, e.sum end
  e = entry(c, offset + 1)
  if e then return offset, e.prev, e.sum - e.size end
  return nil
end

-- A mark has 48 bits. The highest 8 are of the log: a position of before Redis lost
-- everything is known for that also where it is below what is kept, if an old copy
-- was restored since.
local LOGBIT = 1099511627776

-- generation returns the two secrets that are good and the log's bits, or nil: there is
-- none yet.
local function generation()
  local g = redis.call('HMGET', GENERATION, 'number', 'secret', 'before', 'log')
  if not g[1] then return nil end
  return {number = tonumber(g[1]), secret = g[2], before = g[3], log = tonumber(g[4])}
end

-- begin makes the first one.
local function begin(secret, before)
  local g = {number = 1, secret = secret, before = before, log = string.byte(secret) % 255 + 1}
  redis.call('HSET', GENERATION, 'number', 1, 'secret', secret, 'before', before, 'log', g.log, 'rose', str(now), 'counted', str(now))
  return g
end

-- place derives the mark of the place before a channel's first event.
local function place(c, g, secret)
  return g.log * LOGBIT + tonumber(string.sub(redis.sha1hex(secret .. redis.sha1hex(secret .. c.name)), 1, 10), 16)
end

-- advance moves the base of m over what the stream has no more, and over what is
-- too old, but no farther than most events.
local function advance(c, m, most)
  local first = redis.call('XRANGE', c.events, '-', '+', 'COUNT', 1)[1]
  if not first then
    m.base, m.basemark, m.basesum = m.head, m.mark, m.sum
    return
  end
  local e = parse(first)
  if e.offset > m.base + 1 then
    m.base, m.basemark, m.basesum = e.offset - 1, e.prev, e.sum - e.size
  end
  m.oldest = e.time
  if m.age < 0 or e.time + m.age > now then return end
  local low, high = e.offset, math.min(m.head, e.offset + most - 1)
  while low < high do
    local middle = math.floor((low + high + 1) / 2)
    local there = entry(c, middle)
    if not there or there.time + m.age <= now then low = middle else high = middle - 1 end
  end
  local offset, mark, sum = at(c, m, low)
  if offset then
    m.base, m.basemark, m.basesum = offset, mark, sum
  elseif low == m.head then
    m.base, m.basemark, m.basesum = m.head, m.mark, m.sum
  end
end

-- look returns what a reader sees of a channel: m with its base moved over what is
-- too old, and its head where readers may read to.
local function look(c)
  local m = load(c)
  if not m then return nil end
  advance(c, m, 9007199254740992)
  m.last, m.lastmark = m.head, m.mark
  if m.readable and m.readable < m.head then
    local offset, mark, sum = at(c, m, math.max(m.readable, m.base))
    if not offset then offset, mark, sum = m.base, m.basemark, m.basesum end -- until more is confirmed
    m.head, m.mark, m.sum = offset, mark, sum
  end
  return m
end

-- born reports whether a mark is one of the place before the first event.
local function born(m, mark) return mark == m.birth or mark == m.birthbefore end

-- locate says what a position is in what look returned: nil if it is exact, else why
-- it is lost. One that is there, but not readable yet, is exact, and has nothing after it.
local function locate(c, m, g, offset, mark)
  if offset > m.last or offset == 0 and not born(m, mark) then return 'rewritten' end
  if offset < m.base then
    -- Its mark is no longer known, and need not be: all that is kept comes later.
    return math.floor(mark / LOGBIT) == g.log and 'trimmed' or 'rewritten'
  end
  local known = m.birth
  if offset == 0 then return nil end
  if offset == m.head then known = m.mark
  elseif offset == m.base then known = m.basemark
  else
    local _
    _, known = at(c, m, offset)
  end
  if known ~= mark then return 'rewritten' end
  return nil
end

-- seen is the part of an answer that tells of the channel.
local function seen(kind, m, g)
  local unconfirmed, renew = 0, 0
  if m.last > m.head then unconfirmed = 1 end
  if m.base == m.last and m.written < g.number then renew = 1 end
  return {kind, m.head, m.mark, m.sum, m.base, m.basemark, m.basesum, m.birth, m.birthbefore, unconfirmed, renew}
end

-- unborn is the answer for a channel that nobody wrote.
local function unborn(c, g) return {'unborn', place(c, g, g.secret), place(c, g, g.before)} end

-- add appends entries to an answer, each as offset, header and body, from one offset
-- to another, which may be before it, while they are of fewer bytes and events than
-- most. It is at least one. It returns the offset of the last one, if there is any.
local function add(answer, c, from, to, bytes, most)
  local command, step = 'XRANGE', 1
  if from > to then command, step = 'XREVRANGE', -1 end
  local last
  while bytes > 0 and most > 0 and (to - from) * step >= 0 do
    local some = redis.call(command, c.events, str(from), str(to), 'COUNT', math.min(most, 64))
    if #some == 0 then break end
    for _, raw in ipairs(some) do
      local e = parse(raw)
      if last and e.size > bytes then return last end
      bytes, most = bytes - e.size, most - 1
      table.insert(answer, e.offset)
      table.insert(answer, e.header)
      table.insert(answer, e.body)
      last = e.offset
      if bytes <= 0 or most <= 0 then return last end
    end
    from = last + step
  end
  return last
end
