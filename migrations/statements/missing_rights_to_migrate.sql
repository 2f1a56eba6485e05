-- What the login of `tidings migrate` lacks, and the SQL that mends it (to be run by a superuser or the owner).
with login as (select rolname::text as name, rolsuper, rolcreaterole, rolbypassrls from pg_roles where rolname = current_user)
select problem, mend from (
  select format('login %s may not create schemas in database %s', login.name, current_database()) as problem,
         format('grant create on database %I to %I', current_database(), login.name) as mend
    from login
   where to_regnamespace('tidings') is null
     and not has_database_privilege(login.name, current_database(), 'CREATE')
  union all
  select format('login %s may not create the roles %s', login.name, string_agg(wanted, ', ')),
         format('alter role %I createrole', login.name)
    from login, unnest(array['anon', 'authenticated', 'service_role', 'tidings_gateway', 'tidings_capture']) wanted
   where to_regrole(wanted) is null and not login.rolsuper and not login.rolcreaterole
   group by login.name
  union all
  select format('login %s may not create service_role, which bypasses row-level security', login.name),
         'as a superuser: create role service_role nologin noinherit bypassrls'
    from login
   where to_regrole('service_role') is null and not login.rolsuper and not login.rolbypassrls
  union all
  -- Who migrates becomes a member of each role. Up to version 15 CREATEROLE is enough to grant oneself one that exists.
  select format('login %s is not a member of role %s', login.name, wanted),
         format('grant %I to %I', wanted, login.name)
    from login, unnest(array['anon', 'authenticated', 'service_role', 'tidings_gateway', 'tidings_capture']) wanted
   where to_regrole(wanted) is not null and not login.rolsuper and not pg_has_role(login.name, wanted, 'MEMBER')
     and not (login.rolcreaterole and current_setting('server_version_num')::integer < 160000)
  union all
  select format('login %s is not the owner of schema tidings', login.name),
         format('run tidings migrate as %s', pg_get_userbyid(n.nspowner))
    from login, pg_namespace n
   where n.nspname = 'tidings' and not pg_has_role(login.name, n.nspowner, 'USAGE')
) missing
