-- Makes the session a principal until the next call: role, claims, and the settings that older policies read.
-- $1 role, $2 claims as JSON, $3 the claim sub or '', $4 the principal's mark, $5 the topic of the private channel that is asked
-- about or '', $6 the headers of its socket as a JSON object. The mark lets the next statement make sure that this one has taken
-- effect: if it fails, the session is still somebody else.
select pg_catalog.set_config('role', $1, false),
       pg_catalog.set_config('request.jwt.claims', $2, false),
       pg_catalog.set_config('request.jwt.claim.sub', $3, false),
       pg_catalog.set_config('request.jwt.claim.role', $1, false),
       pg_catalog.set_config('realtime.topic', $5, false),
       pg_catalog.set_config('request.headers', $6, false),
       pg_catalog.set_config('tidings.principal', $4, false)
