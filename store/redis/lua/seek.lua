-- seek finds where to begin.
-- ARGV: 3 'latest', 'earliest', 'last' or 'since'; 4 how many, or the microseconds.
local c = channel(ARGV[1])
local g = generation()
if not g then return {'new'} end
local m = look(c)
if not m then return unborn(c, g) end
local offset = m.head
if ARGV[3] == 'earliest' then offset = m.base
elseif ARGV[3] == 'last' then offset = math.max(m.base, m.head - tonumber(ARGV[4]))
elseif ARGV[3] == 'since' then
  local low = m.base
  while low < offset do
    local middle = math.floor((low + offset + 1) / 2)
    local e = entry(c, middle)
    if not e or e.time < tonumber(ARGV[4]) then low = middle else offset = middle - 1 end
  end
end
if offset == m.head then return {'at', offset, m.mark} end
local there, mark = at(c, m, offset)
if not there then return {'at', m.base, m.basemark} end
return {'at', there, mark}
