-- last tells a channel's last event, whether readers may see it or not.
local m = load(channel(ARGV[1]))
if not m then return {'none'} end
return {'at', m.head, m.mark}
