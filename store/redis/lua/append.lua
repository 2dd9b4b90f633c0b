-- append adds a batch to a channel, all of it or nothing.
-- ARGV: 3 and 4 fresh secrets; 5 events, 6 bytes and 7 microseconds that are kept, or
-- -1; 8 '1' if it has to be confirmed; 9 the producer's id, or '', 10 its owner, 11 its
-- number in 20 digits; 12 how many producers an owner may have, and 13 a channel; 14 for
-- how many microseconds they are remembered; 15 and 16 the offset and the mark that the
-- head must have, or ''; then of each message its mark, size and body.
local FIRST = 17
local c = channel(ARGV[1])
local events, bytes, age = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local id, owner, number = ARGV[9], ARGV[10], ARGV[11]

local g = generation() or begin(ARGV[3], ARGV[4])
local m = load(c)

local known = false
if id ~= '' then
  known = m and redis.call('HGET', c.producers, id)
  if known then
    local last, offset, mark, first = string.match(known, '^(%d+) (%d+) (%d+) (.*)$')
    owner = first
    if number == last then return {'duplicate', tonumber(offset), tonumber(mark)} end
    if number < last then return {'stale'} end
  else
    local function full()
      local here = m and tonumber(redis.call('HGET', c.meta, 'producers') or 0) or 0
      return here >= tonumber(ARGV[13]) or tonumber(redis.call('HGET', OWNERS, owner) or 0) >= tonumber(ARGV[12])
    end
    if full() then
      forget(tonumber(ARGV[14]), 100)
      if full() then return {'busy'} end
    end
    if m then
      m.producers = tonumber(redis.call('HGET', c.meta, 'producers') or 0)
      m.was.producers = m.producers
    end
  end
end

if ARGV[15] ~= '' then
  local offset, mark = tonumber(ARGV[15]), tonumber(ARGV[16])
  if m then
    if offset ~= m.head or mark ~= m.mark and not (offset == 0 and born(m, mark)) then return {'unexpected', m.head, m.mark} end
  else
    local present = place(c, g, g.secret)
    if offset ~= 0 or mark ~= present and mark ~= place(c, g, g.before) then return {'unexpected', 0, present} end
  end
end

if not m then
  local birth = place(c, g, g.secret)
  m = {
    head = 0, mark = birth, sum = 0, base = 0, basemark = birth, basesum = 0, birth = birth, birthbefore = place(c, g, g.before),
    time = 0, producers = 0, was = {},
  }
  redis.call('DEL', c.events, c.producers) -- left alone by what took the rest, if anything is
end
local wasempty = m.base == m.head
if ARGV[8] == '1' then
  m.readable = m.readable or m.head
elseif m.readable then
  m.readable = nil
  redis.call('HDEL', c.meta, 'readable')
end

m.time = math.max(m.time, now) -- a clock that was set back stands still
for i = FIRST, #ARGV, 3 do
  local mark, size = g.log * LOGBIT + tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  m.head, m.sum = m.head + 1, m.sum + size
  local header = string.format('%.0f %.0f %.0f %.0f %d', mark, m.mark, m.time, m.sum, size)
  redis.call('XADD', c.events, str(m.head) .. '-0', 'h', header, 'b', ARGV[i + 2])
  m.mark = mark
end
m.written = g.number

-- What goes over a bound, it goes at once, but where a bound became much lower.
local most = 1000 + #ARGV
local from = m.base
if events > 0 and m.head - m.base > events then
  local last = entry(c, math.min(m.head - events, m.base + most))
  if last then m.base, m.basemark, m.basesum = last.offset, last.mark, last.sum end
end
while bytes > 0 and m.sum - m.basesum > bytes and m.base < m.head - 1 and m.base - from < most do
  local some = redis.call('XRANGE', c.events, str(m.base + 1), str(m.head - 1), 'COUNT', 16)
  if #some == 0 then break end
  for _, raw in ipairs(some) do
    if m.sum - m.basesum <= bytes then break end
    local e = parse(raw)
    m.base, m.basemark, m.basesum = e.offset, e.mark, e.sum
  end
end
if wasempty then m.oldest = m.time end
local aged = m.age ~= age
m.age = age
if age >= 0 and (m.oldest or 0) + age <= now then
  if m.base > from then redis.call('XTRIM', c.events, 'MINID', str(m.base + 1)) end
  advance(c, m, most)
  aged = true
end
if m.base > from then redis.call('XTRIM', c.events, 'MINID', str(m.base + 1)) end

if id ~= '' then
  redis.call('HSET', c.producers, id, number .. ' ' .. str(m.head) .. ' ' .. str(m.mark) .. ' ' .. owner)
  redis.call('ZADD', PRODUCERS, str(now), #c.name .. ':' .. c.name .. id)
  if not known then
    redis.call('HINCRBY', OWNERS, owner, 1)
    m.producers = m.producers + 1
  end
end

local fields = {}
for _, field in ipairs(FIELDS) do
  local value = m[field]
  if value and value ~= m.was[field] then
    fields[#fields + 1] = field
    fields[#fields + 1] = str(value)
  end
end
redis.call('HSET', c.meta, unpack(fields))
if wasempty then redis.call('ZREM', EMPTY, c.name) end
if wasempty or aged then
  if age >= 0 then redis.call('ZADD', AGING, str(m.oldest + age), c.name) else redis.call('ZREM', AGING, c.name) end
end
if not m.readable then redis.call('PUBLISH', c.bell, '') end
return {'appended', m.head, m.mark}
