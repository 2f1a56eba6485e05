-- What every writer of a watched table pays, made less. Two things were a third of it, and need not be:
--
--   * A function with settings of its own makes PostgreSQL open and close a level of settings at each call: 6 µs a row. The settings
--     matter only to rendering, and nearly every session has those that are wanted. So they are compared, and set only for rendering
--     where they differ. The exception are values that are rendered by the search path, as regclass is: tables with such columns keep
--     the function with settings.
--   * extract() reckons in numeric: 4 µs a row. date_part() gives the same seconds as a float.
--
-- Without a search_path of its own a function must name everything by its schema, operators too, or a writer could put others in
-- their place. So must the functions that the planner puts into it.

create or replace function tidings.slot_at(at timestamptz) returns smallint language sql stable
  as $$ select (pg_catalog.date_part('epoch', at)::bigint operator(pg_catalog./) tidings.slot_seconds() operator(pg_catalog.%) 10::bigint)::smallint $$;

-- Whether this session renders values as the log wants them: timestamps in UTC, ISO dates (inside ranges), intervals as PostgreSQL
-- writes them, floats in full, bytea as hex.
create function tidings.renders_plainly() returns boolean language sql stable
  as $$ select pg_catalog.current_setting('TimeZone') operator(pg_catalog.=) any (array['UTC', 'Etc/UTC', 'GMT'])
           and pg_catalog.current_setting('DateStyle') operator(pg_catalog.=) 'ISO, MDY'
           and pg_catalog.current_setting('IntervalStyle') operator(pg_catalog.=) 'postgres'
           and pg_catalog.current_setting('extra_float_digits') operator(pg_catalog.=) any (array['1', '2', '3'])
           and pg_catalog.current_setting('bytea_output') operator(pg_catalog.=) 'hex' $$;

-- The same row, rendered with the settings that are wanted whatever the session's are.
create function tidings.render_plainly(value record) returns json
language plpgsql stable
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO, MDY'
set intervalstyle = 'postgres'
set extra_float_digits = '1'
set bytea_output = 'hex'
as $$ begin return pg_catalog.row_to_json(value); end $$;

revoke execute on function tidings.renders_plainly(), tidings.render_plainly(record) from public;
grant execute on function tidings.renders_plainly(), tidings.render_plainly(record) to tidings_capture;

-- As tidings.capture() does, at less cost. It is made by its owner, who may create in the schema for this one moment.
grant create on schema tidings to tidings_capture;
set local role tidings_capture;

create function tidings.capture_plainly() returns trigger
language plpgsql security definer
as $$
declare
  rung boolean;
begin
  if tidings.renders_plainly() then
    insert into tidings.changes (watch_id, slot, op, new_record, old_record)
    values (
      tg_argv[0]::integer,
      tidings.slot_at(pg_catalog.clock_timestamp()),
      tg_op::pg_catalog."char",
      pg_catalog.row_to_json(new),
      pg_catalog.row_to_json(old)
    );
  else
    insert into tidings.changes (watch_id, slot, op, new_record, old_record)
    values (
      tg_argv[0]::integer,
      tidings.slot_at(pg_catalog.clock_timestamp()),
      tg_op::pg_catalog."char",
      case when tg_op operator(pg_catalog.<>) 'DELETE' then tidings.render_plainly(new) end,
      case when tg_op operator(pg_catalog.<>) 'INSERT' then tidings.render_plainly(old) end
    );
  end if;
  -- An assignment is evaluated without the executor; PERFORM is a query.
  rung := tidings.ring();
  return null;
end
$$;

reset role;
revoke create on schema tidings from tidings_capture;

-- Which of the two a table needs. A cast to json that is written in SQL would run with the writer's search path, too.
create function tidings.capture_function(relation oid) returns text language sql stable
set search_path = ''
as $$
  with recursive parts as (
    select a.atttypid as type_ from pg_catalog.pg_attribute a
     where a.attrelid = relation and a.attnum > 0 and not a.attisdropped
    union
    select part.type_
      from parts p join pg_catalog.pg_type t on t.oid = p.type_
     cross join lateral (
       select t.typelem union all select t.typbasetype
       union all
       select r.rngsubtype from pg_catalog.pg_range r where t.oid in (r.rngtypid, r.rngmultitypid)
       union all
       select a.atttypid from pg_catalog.pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
     ) part (type_)
  )
  select case when exists (
           select from parts p join pg_catalog.pg_type t on t.oid = p.type_
            where (t.typnamespace = 'pg_catalog'::regnamespace and t.typname like 'reg%')
               or exists (select from pg_catalog.pg_cast c
                            join pg_catalog.pg_proc f on f.oid = c.castfunc
                            join pg_catalog.pg_language l on l.oid = f.prolang
                           where c.castsource = t.oid and c.casttarget = 'json'::regtype and l.lanname not in ('c', 'internal')))
         then 'tidings.capture' else 'tidings.capture_plainly' end
$$;

-- What is watched has the function with settings until it is looked at here: every two seconds, and after each change of the catalog
-- that is heard of.
alter function tidings.sync_watched(text[]) rename to sync_listed;

create function tidings.sync_watched(setting text[]) returns table (relation text, action text, problem text, mend text)
language plpgsql security definer
set search_path = ''
set lock_timeout = '2s'
as $$
declare
  watched record;
begin
  return query select * from tidings.sync_listed(setting);

  for watched in
    select w.id, w.relation as table_, tidings.capture_function(w.relation) as wanted
      from tidings.watched w
      join pg_catalog.pg_trigger t on t.tgrelid = w.relation and t.tgname = 'tidings_capture'
      join pg_catalog.pg_proc p on p.oid = t.tgfoid
     where p.proname is distinct from pg_catalog.split_part(tidings.capture_function(w.relation), '.', 2)
       and t.tgenabled = 'O'
  loop
    begin
      execute pg_catalog.format(
        'create or replace trigger tidings_capture after insert or update or delete on %s for each row execute function %s(%L)',
        watched.table_, watched.wanted, watched.id);
    exception when insufficient_privilege or lock_not_available or undefined_table then
      -- It captures all the same, and is looked at again.
    end;
  end loop;
end
$$;

revoke execute on function tidings.capture_function(oid), tidings.sync_watched(text[]) from public;
grant execute on function tidings.capture_function(oid), tidings.sync_watched(text[]) to tidings_gateway;
