-- part reads events of a part of a channel.
-- ARGV: 3 and 4 the place before the first, or ''; 5 and 6 that of the last, or ''; 7 and 8
-- the times, in microseconds, of the first and before which the last are, or '';
-- 9 '1' if backwards; 10 the most bytes, 11 the most events.
local c = channel(ARGV[1])
local g = generation()
if not g then return {'new'} end
local m = look(c)
if not m then return unborn(c, g) end

local from, to = m.base, m.head
for i = 3, 5, 2 do
  if ARGV[i] ~= '' then
    local offset, mark = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
    local why = locate(c, m, g, offset, mark)
    if why then
      local answer = seen('lost', m, g)
      table.insert(answer, why)
      table.insert(answer, i)
      -- To go on from what is readable would be wrong: after an old copy was restored,
      -- what is not yet may be what the reader has.
      table.insert(answer, m.last)
      table.insert(answer, m.lastmark)
      return answer
    end
    if i == 3 then from = offset else to = offset end
  end
end

-- since returns the last offset of the part of which the event is from before a time.
local function since(time)
  local low, high = m.base, m.head
  while low < high do
    local middle = math.floor((low + high + 1) / 2)
    local e = entry(c, middle)
    if not e or e.time < time then low = middle else high = middle - 1 end
  end
  return low
end
if ARGV[7] ~= '' then from = math.max(from, since(tonumber(ARGV[7]))) end
if ARGV[8] ~= '' then to = math.min(to, since(tonumber(ARGV[8]))) end
to = math.max(from, to)

local answer = seen('part', m, g)
for _, offset in ipairs({from, to}) do
  local o, mark, sum = m.head, m.mark, m.sum
  if offset ~= m.head then o, mark, sum = at(c, m, offset) end
  if not o then o, mark, sum = m.base, m.basemark, m.basesum end
  table.insert(answer, o)
  table.insert(answer, mark)
  table.insert(answer, sum)
end
if from < to then
  if ARGV[9] == '1' then
    add(answer, c, to, from + 1, tonumber(ARGV[10]), tonumber(ARGV[11]))
  else
    add(answer, c, from + 1, to, tonumber(ARGV[10]), tonumber(ARGV[11]))
  end
end
return answer
