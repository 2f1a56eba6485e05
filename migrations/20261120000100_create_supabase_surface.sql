-- What plain PostgreSQL lacks beside a Supabase database: the API roles, schema auth with the functions that
-- policies call, and the publication by which people say which tables send changes. Each is made only where it is
-- absent, so that this file also runs against a Supabase database and changes nothing there.

-- Roles belong to the cluster, not to the database: another database may be making them at this moment.
do $$
declare
  wanted record;
begin
  for wanted in
    select * from (values
      ('anon',             'nologin noinherit'),
      ('authenticated',    'nologin noinherit'),
      ('service_role',     'nologin noinherit bypassrls'),
      -- Members may call what the gateway calls: grant it to the login of `tidings serve`.
      ('tidings_gateway',  'nologin'),
      -- Owns the capture trigger's function, and may do nothing but write to the change log. The function turns rows
      -- into JSON, which runs the casts of user-defined types: whoever owns such a type gains no more than this role.
      ('tidings_capture',  'nologin noinherit')
    ) as roles (name, attributes)
  loop
    if not exists (select from pg_catalog.pg_roles where rolname = wanted.name) then
      begin
        execute format('create role %I %s', wanted.name, wanted.attributes);
      exception when duplicate_object or unique_violation then
        null;
      end;
    end if;
  end loop;
end
$$;

-- Who migrates may also serve. Since PostgreSQL 16 a member may be kept from becoming the role: whoever creates one is. A superuser may become any role without a grant.
do $$
declare
  wanted text;
begin
  if not (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
    foreach wanted in array array['anon', 'authenticated', 'service_role', 'tidings_gateway', 'tidings_capture'] loop
      if not pg_catalog.pg_has_role(current_user, wanted, case when current_setting('server_version_num')::int >= 160000 then 'SET' else 'MEMBER' end) then
        execute format('grant %I to %I', wanted, current_user);
      end if;
    end loop;
  end if;
end
$$;

grant usage on schema public to anon, authenticated, service_role;

do $$
begin
  if to_regnamespace('auth') is null then
    create schema auth;
    grant usage on schema auth to anon, authenticated, service_role;
  end if;
end
$$;

-- A claim is looked up first in a setting of its own (older PostgREST), then in the JSON of all claims. An empty
-- setting counts as none: that is what set_config(…, true) leaves behind at the end of a transaction.
do $$
begin
  if to_regprocedure('auth.jwt()') is null then
    create function auth.jwt() returns jsonb language sql stable as $f$
      select coalesce(
        nullif(current_setting('request.jwt.claim', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')
      )::jsonb
    $f$;
  end if;

  if to_regprocedure('auth.uid()') is null then
    create function auth.uid() returns uuid language sql stable as $f$
      select coalesce(
        nullif(current_setting('request.jwt.claim.sub', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
      )::uuid
    $f$;
  end if;

  if to_regprocedure('auth.role()') is null then
    create function auth.role() returns text language sql stable as $f$
      select coalesce(
        nullif(current_setting('request.jwt.claim.role', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
      )
    $f$;
  end if;

  if to_regprocedure('auth.email()') is null then
    create function auth.email() returns text language sql stable as $f$
      select coalesce(
        nullif(current_setting('request.jwt.claim.email', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email'
      )
    $f$;
  end if;
end
$$;

do $$
begin
  if not exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
    -- It is read as a list of tables, not replicated from: the warning about wal_level would mislead.
    set local client_min_messages = error;
    create publication supabase_realtime;
    reset client_min_messages;
  end if;
end
$$;
