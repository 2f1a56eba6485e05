-- The same for one transaction. $1 role, $2 claims as JSON, $3 the claim sub or ''. Returns no row, and changes nothing, for
-- a superuser: no token may name one, whoever signed it.
select pg_catalog.set_config('role', $1, true),
       pg_catalog.set_config('request.jwt.claims', $2, true),
       pg_catalog.set_config('request.jwt.claim.sub', $3, true),
       pg_catalog.set_config('request.jwt.claim.role', $1, true)
 where not exists (select from pg_catalog.pg_roles where rolname = $1 and rolsuper)
