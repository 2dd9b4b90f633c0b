-- tail brings a node's tail of a channel up to date: with what follows its last
-- event, if that is still what it was; else with the last events there are.
-- ARGV: 3 and 4 the offset and the mark of that event, or ''; 5 the most bytes.
local c = channel(ARGV[1])
local g = generation()
if not g then return {'new'} end
local m = look(c)
if not m then return unborn(c, g) end
local bytes = tonumber(ARGV[5])
if ARGV[3] ~= '' then
  local offset = tonumber(ARGV[3])
  if not locate(c, m, g, offset, tonumber(ARGV[4])) then
    local answer = seen('more', m, g)
    if offset < m.head then add(answer, c, offset + 1, m.head, bytes, 4096) end
    return answer
  end
end
local answer = seen('tail', m, g)
if m.base < m.head then add(answer, c, m.head, m.base + 1, bytes, 4096) end
return answer
