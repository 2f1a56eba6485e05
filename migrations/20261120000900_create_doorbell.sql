-- One place that rings the doorbell. It is a function of a single expression and without settings of its own, so that the
-- planner puts its body where it is called: a change costs as much as if every trigger had its own copy.
--
-- A ring carries nothing: what has changed stands in the log. NOTIFY makes commits queue for one lock of the whole server, so a
-- gateway that reads continuously anyway holds this advisory lock exclusively, and nobody rings. A transaction must have its
-- number before it looks, and has: its row in the log bears it. By the number, a gateway that ends the silence knows whom it has
-- to wait for.
create function tidings.ring() returns boolean language sql volatile
  as $$ select case when pg_catalog.pg_try_advisory_xact_lock_shared(1953064037, 1)
                    then pg_catalog.pg_notify('tidings', '') is not null else false end $$;
revoke execute on function tidings.ring() from public;
grant execute on function tidings.ring() to tidings_capture;

-- The triggers' functions as they were, but for the bell. They are replaced by their owner, who may create in the schema for this
-- one moment.
grant create on schema tidings to tidings_capture;
set local role tidings_capture;

create or replace function tidings.capture() returns trigger
language plpgsql security definer
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO, MDY'
set intervalstyle = 'postgres'
set extra_float_digits = '1'
set bytea_output = 'hex'
as $$
declare
  rung boolean;
begin
  insert into tidings.changes (watch_id, slot, op, new_record, old_record)
  values (
    tg_argv[0]::integer,
    tidings.slot_at(pg_catalog.clock_timestamp()),
    pg_catalog.left(tg_op, 1)::"char",
    pg_catalog.row_to_json(new),
    pg_catalog.row_to_json(old)
  );
  -- An assignment is evaluated without the executor; PERFORM is a query.
  rung := tidings.ring();
  return null;
end
$$;

create or replace function tidings.capture_truncate() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  rung boolean;
begin
  insert into tidings.changes (watch_id, slot, op)
  values (tg_argv[0]::integer, tidings.slot_at(pg_catalog.clock_timestamp()), 'T');
  rung := tidings.ring();
  return null;
end
$$;

create or replace function tidings.capture_dependency() returns trigger
language plpgsql security definer
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO, MDY'
set intervalstyle = 'postgres'
as $$
declare
  rung boolean;
begin
  insert into tidings.changes (watch_id, slot, op, new_record, old_record)
  values (
    tg_argv[0]::integer, tidings.slot_at(pg_catalog.clock_timestamp()), 'C',
    (select pg_catalog.json_object_agg(key, value) from pg_catalog.json_each(pg_catalog.row_to_json(new)) where key = any (tg_argv[1]::text[])),
    (select pg_catalog.json_object_agg(key, value) from pg_catalog.json_each(pg_catalog.row_to_json(old)) where key = any (tg_argv[1]::text[])));
  rung := tidings.ring();
  return null;
end
$$;

create or replace function tidings.capture_dependency_truncate() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  rung boolean;
begin
  insert into tidings.changes (watch_id, slot, op)
  values (tg_argv[0]::integer, tidings.slot_at(pg_catalog.clock_timestamp()), 'C');
  rung := tidings.ring();
  return null;
end
$$;

reset role;
revoke create on schema tidings from tidings_capture;
