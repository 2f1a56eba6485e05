-- Whether `tidings doctor` can go on: the functions that it asks are there and may be called. One row.
select count(*) = 3 as ready
  from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
 where n.nspname = 'tidings' and p.proname in ('access', 'catalog', 'dependencies')
   and pg_catalog.has_schema_privilege(n.oid, 'USAGE') and pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
