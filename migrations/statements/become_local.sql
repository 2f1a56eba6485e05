-- The same for one transaction. $1 role, $2 claims as JSON, $3 the claim sub or ''.
select pg_catalog.set_config('role', $1, true),
       pg_catalog.set_config('request.jwt.claims', $2, true),
       pg_catalog.set_config('request.jwt.claim.sub', $3, true),
       pg_catalog.set_config('request.jwt.claim.role', $1, true)
