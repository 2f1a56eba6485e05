-- What the login of `tidings serve` lacks, and the SQL that mends it. Runs before anything of ours can be relied on,
-- so it is a statement and not a function.
with login as (select current_user::text as name)
select problem, mend from (
  select 'the schema tidings is missing' as problem,
         'tidings migrate' as mend
   where to_regnamespace('tidings') is null
  union all
  select format('role %s is missing', wanted), 'tidings migrate'
    from unnest(array['anon', 'authenticated', 'service_role', 'tidings_gateway']) wanted
   where to_regrole(wanted) is null
  union all
  select format('login %s may not become %s', login.name, wanted),
         format('grant %I to %I', wanted, login.name)
    from login, unnest(array['anon', 'authenticated', 'service_role']) wanted
   where to_regrole(wanted) is not null and not pg_has_role(login.name, wanted, case when current_setting('server_version_num')::int >= 160000 then 'SET' else 'MEMBER' end)
  union all
  select format('login %s may not call the functions of schema tidings', login.name),
         format('grant tidings_gateway to %I', login.name)
    from login
   where to_regrole('tidings_gateway') is not null and not pg_has_role(login.name, 'tidings_gateway', 'USAGE')
) missing
