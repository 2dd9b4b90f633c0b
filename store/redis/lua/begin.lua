-- begin makes a bucket's first generation, if there is none.
-- ARGV: 3 and 4 fresh secrets.
if not generation() then begin(ARGV[3], ARGV[4]) end
return {'ok'}
