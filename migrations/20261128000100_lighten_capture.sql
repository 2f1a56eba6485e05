-- What every writer of a watched table pays, made less. Two things were a third of it, and need not be:
--
--   * A function with settings of its own makes PostgreSQL open and close a level of settings at each call: 6 µs a row. The settings
--     matter only to rendering, and most sessions have those that are wanted. So they are compared, and set only where they differ. The
--     exception are values that are rendered by the search path, as regclass is: tables with such columns keep the function with
--     settings.
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
           and pg_catalog.current_setting('DateStyle') operator(pg_catalog.=) any (array['ISO, MDY', 'ISO, DMY', 'ISO, YMD'])
           and pg_catalog.current_setting('IntervalStyle') operator(pg_catalog.=) 'postgres'
           and pg_catalog.current_setting('extra_float_digits') operator(pg_catalog.=) any (array['1', '2', '3'])
           and pg_catalog.current_setting('bytea_output') operator(pg_catalog.=) 'hex' $$;

-- As tidings.capture() does, at less cost. They are made by their owner, who may create in the schema for this one moment.
grant create on schema tidings to tidings_capture;
set local role tidings_capture;

-- For sessions that render otherwise: the change is logged under the settings that are wanted.
create function tidings.log_rendered(watch_id integer, op "char", new_row record, old_row record) returns boolean
language plpgsql volatile
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO, MDY'
set intervalstyle = 'postgres'
set extra_float_digits = '1'
set bytea_output = 'hex'
as $$
begin
  insert into tidings.changes (watch_id, slot, op, new_record, old_record)
  values (
    log_rendered.watch_id,
    tidings.slot_at(pg_catalog.clock_timestamp()),
    log_rendered.op,
    pg_catalog.row_to_json(new_row),
    pg_catalog.row_to_json(old_row)
  );
  return tidings.ring();
end
$$;

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
    -- An assignment is evaluated without the executor; PERFORM is a query.
    rung := tidings.ring();
  else
    rung := tidings.log_rendered(tg_argv[0]::integer, tg_op::pg_catalog."char", new, old);
  end if;
  return null;
end
$$;

revoke execute on function tidings.log_rendered(integer, "char", record, record) from public;

reset role;
revoke create on schema tidings from tidings_capture;

revoke execute on function tidings.renders_plainly() from public;
grant execute on function tidings.renders_plainly() to tidings_capture;

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

-- What is watched has the function with settings until it is looked at here, and may need it again: a column can be added. The lock
-- that replacing a trigger takes keeps writers waiting while it is waited for, so there is one table at a time, a short wait, and
-- chance, so that a table that is never free does not keep the others from it. Until its turn comes a table captures all the same.
create function tidings.lighten_capture() returns void
language plpgsql security definer
set search_path = ''
set lock_timeout = '50ms'
as $$
declare
  watched record;
begin
  select w.id, w.relation as table_, tidings.capture_function(w.relation) as wanted into watched
    from tidings.watched w
    join pg_catalog.pg_trigger t on t.tgrelid = w.relation and t.tgname = 'tidings_capture'
    join pg_catalog.pg_proc p on p.oid = t.tgfoid
   where p.proname is distinct from pg_catalog.split_part(tidings.capture_function(w.relation), '.', 2)
     and t.tgenabled = 'O'
     -- Asked first: replacing takes its lock before it looks at the rights.
     and pg_catalog.has_table_privilege(w.relation, 'TRIGGER')
   order by pg_catalog.random()
   limit 1;
  if found then
    execute pg_catalog.format(
      'create or replace trigger tidings_capture after insert or update or delete on %s for each row execute function %s(%L)',
      watched.table_, watched.wanted, watched.id);
  end if;
exception when others then
  -- Taken, dropped, or refused by an event trigger of somebody's: it is looked at again.
  null;
end
$$;

revoke execute on function tidings.capture_function(oid), tidings.lighten_capture() from public;
grant execute on function tidings.lighten_capture() to tidings_gateway;
