-- What `tidings doctor` tells of a role ($2) and a watched table ($1). One row.
select r.oid is not null as role_exists, a.restricted, a.reads, a.statement is not null as judged, a.definition is not null as needs_function,
       coalesce(pg_catalog.pg_has_role(current_user, r.oid,
         case when current_setting('server_version_num')::integer >= 160000 then 'SET' else 'MEMBER' end), false) as may_become,
       format('grant %I to %I', $2::text, current_user) as mend,
       coalesce(r.rolsuper, false) as superuser,
       coalesce(r.rolbypassrls, false) as bypasses,
       coalesce(pg_catalog.has_schema_privilege(r.oid, c.relnamespace, 'USAGE'), false) as may_use_schema,
       array(select k.attname::text from pg_catalog.pg_attribute k
              where k.attrelid = c.oid and k.attnum > 0 and not k.attisdropped
                and pg_catalog.has_column_privilege(r.oid, c.oid, k.attnum, 'SELECT')
              order by k.attnum) as readable,
       array(select k.attname::text from pg_catalog.pg_attribute k
              where k.attrelid = c.oid and k.attnum > 0 and not k.attisdropped
                and not coalesce(pg_catalog.has_column_privilege(r.oid, c.oid, k.attnum, 'SELECT'), false)
              order by k.attnum) as unreadable,
       array(select p.polname::text || case when p.polpermissive then '' else ' (restrictive)' end
               from pg_catalog.pg_policy p
              where p.polrelid = c.oid and p.polcmd in ('r', '*')
                and exists (select from unnest(p.polroles) as member
                             where member = 0 or pg_catalog.pg_has_role(r.oid, member, 'USAGE'))
              order by p.polname) as policies,
       array(select key from json_object_keys(coalesce(a.parents, '{}')) key order by key) as parents
  from tidings.access($1::oid::regclass, $2::text) a
 cross join (select k.oid, k.relnamespace from pg_catalog.pg_class k where k.oid = $1::oid) c
  left join pg_catalog.pg_roles r on r.rolname = $2::text
