-- What verdicts rest on besides the row itself, and how the gateway learns that it has changed: through the change log,
-- so that it meets the loss of a right in its place among the changes, and delivers nothing under it that was committed later.

-- The tables that policies read, with a trigger each. Ids come from the same sequence as those of watched tables.
create table tidings.depended (
  id       integer primary key default nextval(pg_get_serial_sequence('tidings.watched', 'id')),
  relation regclass not null unique,
  -- The columns on which verdicts rest, in table order.
  columns  text[] not null,
  -- Whether a new row could take a right away (NOT EXISTS, a count, …).
  inserts  boolean not null
);
grant select on tidings.depended to tidings_gateway;

-- Whether more rows in the tables that an expression queries can only make it true, never false: all its subqueries are
-- EXISTS or IN, none is negated, counted, limited, or outer-joined. Decided on the tree; what it does not know, it denies.
create function tidings.only_grows(expression pg_node_tree) returns boolean
language sql stable
set search_path = ''
as $$
  select expression is null
      or (expression::text !~ ':boolop not'
          and expression::text !~ '\{(BOOLEANTEST|CASE|COALESCE|DISTINCTEXPR|NULLIFEXPR|NULLTEST :arg \{SUBLINK)'
          -- Truth values compared with each other, or handed to a function.
          and expression::text !~ ':opno (58|59|85|91|1694|1695) '
          and expression::text !~ '\{FUNCEXPR[^{}]*:args \(\{SUBLINK :subLinkType [02] '
          and expression::text !~ ':hasAggs true'
          and expression::text !~ ':hasWindowFuncs true'
          and expression::text !~ ':setOperations \{'
          and expression::text !~ ':limitCount \{'
          and expression::text !~ ':limitOffset \{'
          and expression::text !~ ':jointype [1-9]'
          -- A subquery that is compared as a value may select from settings, as in (select auth.uid()), but not from tables.
          and not exists (
            select from pg_catalog.regexp_matches(expression::text, ':subLinkType 4 .*?:rtable (<>|\()', 'g') as found
             where found[1] = '(')
          and expression::text !~ ':subLinkType [13567] ')
$$;

-- What the verdicts on a table rest on: the tables and columns that its SELECT policies read, those that the policies of
-- these tables read, through views and functions with a parsed body. Other functions hide what they read: `hidden` names
-- them, and only the periodic re-check covers them.
create function tidings.dependencies(relation regclass)
returns table (depends_on regclass, columns text[], inserts boolean, hidden text[])
language plpgsql stable
set search_path = ''
as $$
declare
  queue   oid[] := array[relation::oid];
  done    oid[] := '{}';
  table_  oid;
  found_  record;
  reads   jsonb := '{}';   -- oid → {"columns": [...], "inserts": bool}
  unknown text[] := '{}';
begin
  while pg_catalog.cardinality(queue) > 0 loop
    table_ := queue[1];
    queue := queue[2:];
    continue when table_ = any (done);
    done := done || table_;

    for found_ in
      with recursive
        policy as (
          select p.oid, p.polqual, tidings.only_grows(p.polqual) as grows
            from pg_catalog.pg_policy p join pg_catalog.pg_class c on c.oid = p.polrelid
           where p.polrelid = table_ and p.polcmd in ('r', '*') and c.relrowsecurity
        ),
        -- Objects that an expression of the policies refers to, through views and functions.
        used as (
          select d.refclassid, d.refobjid, d.refobjsubid, p.grows
            from policy p join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_policy'::regclass and d.objid = p.oid
           where not (d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = table_)
          union
          select d.refclassid, d.refobjid, d.refobjsubid, false
            from used u
           cross join lateral (
                  select 'pg_catalog.pg_rewrite'::regclass as classid, r.oid as objid from pg_catalog.pg_rewrite r
                   where u.refclassid = 'pg_catalog.pg_class'::regclass and r.ev_class = u.refobjid
                  union all
                  select 'pg_catalog.pg_proc'::regclass, u.refobjid where u.refclassid = 'pg_catalog.pg_proc'::regclass
                ) o
            join pg_catalog.pg_depend d on d.classid = o.classid and d.objid = o.objid and d.refobjid <> u.refobjid
        )
      select u.refclassid, u.refobjid, u.refobjsubid, u.grows from used u
      union all
      -- A policy that queries its own table.
      select 'pg_catalog.pg_class'::regclass, table_, 0, false from policy p
       where p.polqual::text ~ (':relid ' || table_ || ' ')
    loop
      if found_.refclassid = 'pg_catalog.pg_class'::regclass then
        case (select c.relkind from pg_catalog.pg_class c where c.oid = found_.refobjid)
          when 'r', 'p' then
            reads := pg_catalog.jsonb_set(reads, array[found_.refobjid::text], pg_catalog.jsonb_build_object(
              'columns', coalesce(reads -> found_.refobjid::text -> 'columns', '[]') || case
                when found_.refobjsubid > 0 then
                  (select pg_catalog.jsonb_build_array(a.attname) from pg_catalog.pg_attribute a
                    where a.attrelid = found_.refobjid and a.attnum = found_.refobjsubid)
                else '[]' end,
              'inserts', coalesce((reads -> found_.refobjid::text ->> 'inserts')::boolean, false) or not found_.grows));
            queue := queue || found_.refobjid;
          when 'm', 'f' then
            unknown := unknown || found_.refobjid::regclass::text;
          else null;
        end case;
      elsif found_.refclassid = 'pg_catalog.pg_proc'::regclass then
        unknown := unknown || (
          select coalesce(pg_catalog.array_agg(pr.oid::regprocedure::text), '{}') from pg_catalog.pg_proc pr
            join pg_catalog.pg_namespace n on n.oid = pr.pronamespace
            join pg_catalog.pg_language l on l.oid = pr.prolang
           where pr.oid = found_.refobjid and pr.prosqlbody is null
             -- These read settings only, here as on Supabase; so does a body in which no table could be named.
             and not (n.nspname = 'auth' and pr.proname in ('uid', 'role', 'jwt', 'email'))
             and not (l.lanname = 'sql' and pr.prosrc !~* '\m(from|join|table|call|into)\M'));
      end if;
    end loop;
  end loop;

  hidden := (select coalesce(pg_catalog.array_agg(distinct name), '{}') from pg_catalog.unnest(unknown) name);
  for found_ in select key, value from pg_catalog.jsonb_each(reads) loop
    depends_on := found_.key::oid::regclass;
    inserts := (found_.value ->> 'inserts')::boolean;
    -- In table order; all of them where only the table as a whole is known to be read.
    select coalesce(pg_catalog.array_agg(a.attname::text order by a.attnum), '{}') into columns
      from pg_catalog.pg_attribute a
     where a.attrelid = depends_on and a.attnum > 0 and not a.attisdropped
       and (found_.value -> 'columns' = '[]' or found_.value -> 'columns' ? a.attname);
    return next;
  end loop;
  if reads = '{}' and pg_catalog.cardinality(hidden) > 0 then
    depends_on := null;
    columns := '{}';
    inserts := false;
    return next;
  end if;
end
$$;

-- Writes a control row for a changed row of a table that policies read: op C, the id of tidings.depended, and the values
-- on which verdicts rest, before and after. The gateway asks first about those whom these values name.
create function tidings.capture_dependency() returns trigger
language plpgsql security definer
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO, MDY'
set intervalstyle = 'postgres'
as $$
begin
  insert into tidings.changes (watch_id, slot, op, new_record, old_record)
  values (
    tg_argv[0]::integer, tidings.slot_at(pg_catalog.clock_timestamp()), 'C',
    (select pg_catalog.json_object_agg(key, value) from pg_catalog.json_each(pg_catalog.row_to_json(new)) where key = any (tg_argv[1]::text[])),
    (select pg_catalog.json_object_agg(key, value) from pg_catalog.json_each(pg_catalog.row_to_json(old)) where key = any (tg_argv[1]::text[])));

  if pg_catalog.pg_try_advisory_xact_lock_shared(1953064037, 1) then
    perform pg_catalog.pg_notify('tidings', '');
  end if;
  return null;
end
$$;

create function tidings.capture_dependency_truncate() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  insert into tidings.changes (watch_id, slot, op)
  values (tg_argv[0]::integer, tidings.slot_at(pg_catalog.clock_timestamp()), 'C');

  if pg_catalog.pg_try_advisory_xact_lock_shared(1953064037, 1) then
    perform pg_catalog.pg_notify('tidings', '');
  end if;
  return null;
end
$$;

grant create on schema tidings to tidings_capture;
alter function tidings.capture_dependency() owner to tidings_capture;
alter function tidings.capture_dependency_truncate() owner to tidings_capture;
revoke create on schema tidings from tidings_capture;

-- Makes the triggers agree with what the policies of the watched tables read now. A row that is touched where no verdict
-- rests on it fires nothing: the comparison is the trigger's WHEN. What cannot be done is reported, and tried again.
create function tidings.sync_depended() returns table (relation text, action text, problem text, mend text)
language plpgsql security definer
set search_path = ''
set lock_timeout = '2s'
set client_min_messages = 'warning'
as $$
declare
  wanted  record;
  dep_id  integer;
  differs text;
begin
  perform pg_catalog.pg_advisory_xact_lock(1953064037, 2);
  for wanted in
    select coalesce(n.table_, d.relation) as table_, n.columns, n.inserts, d.id, d.columns as before_columns, d.inserts as before_inserts
      from (select x.depends_on as table_,
                   (select pg_catalog.array_agg(a.attname::text order by a.attnum) from pg_catalog.pg_attribute a
                     where a.attrelid = x.depends_on and a.attnum > 0 and not a.attisdropped
                       and a.attname::text = any (pg_catalog.array_agg(c))) as columns,
                   pg_catalog.bool_or(x.inserts) as inserts
              from tidings.watched w, tidings.dependencies(w.relation) x, pg_catalog.unnest(x.columns) c
             where x.depends_on is not null
             group by x.depends_on) n
      full join tidings.depended d on d.relation = n.table_
     where n.table_ is null or d.id is null or n.columns <> d.columns or n.inserts <> d.inserts
  loop
    relation := wanted.table_::text;
    action := case when wanted.columns is null then 'forget' else 'follow' end;
    problem := null;
    mend := null;
    begin
      -- Asked before CREATE TRIGGER takes its lock, which it does before it looks at the rights.
      if wanted.columns is not null and not pg_catalog.has_table_privilege(wanted.table_, 'TRIGGER') then
        raise exception 'role % may not create a trigger on %', current_user, wanted.table_;
      end if;
      if exists (select from pg_catalog.pg_class c where c.oid = wanted.table_) then
        execute pg_catalog.format('drop trigger if exists tidings_dependency on %s', wanted.table_);
        execute pg_catalog.format('drop trigger if exists tidings_dependency_update on %s', wanted.table_);
        execute pg_catalog.format('drop trigger if exists tidings_dependency_truncate on %s', wanted.table_);
      end if;
      delete from tidings.depended d where d.relation = wanted.table_;
      if wanted.columns is not null then
        insert into tidings.depended (relation, columns, inserts) values (wanted.table_, wanted.columns, wanted.inserts)
          returning id into dep_id;
        select pg_catalog.string_agg(pg_catalog.format('old.%1$I::text is distinct from new.%1$I::text', c), ' or ') into differs
          from pg_catalog.unnest(wanted.columns) c;
        execute pg_catalog.format(
          'create trigger tidings_dependency after %s on %s for each row execute function tidings.capture_dependency(%L, %L)',
          case when wanted.inserts then 'insert or delete' else 'delete' end, wanted.table_, dep_id, wanted.columns);
        execute pg_catalog.format(
          'create trigger tidings_dependency_update after update on %s for each row when (%s) execute function tidings.capture_dependency(%L, %L)',
          wanted.table_, differs, dep_id, wanted.columns);
        execute pg_catalog.format(
          'create trigger tidings_dependency_truncate after truncate on %s for each statement execute function tidings.capture_dependency_truncate(%L)',
          wanted.table_, dep_id);
      end if;
    exception when others then
      get stacked diagnostics problem = message_text;
      mend := pg_catalog.format('grant trigger on table %s to %I; until then only the periodic re-check covers it', wanted.table_, current_user);
    end;
    return next;
  end loop;
end
$$;

-- Which watched tables' verdicts rest on a table with a trigger.
create function tidings.depending() returns table (depended_id integer, watch_id integer)
language sql stable
set search_path = ''
as $$
  select d.id, w.id
    from tidings.watched w, tidings.dependencies(w.relation) x, tidings.depended d
   where d.relation = x.depends_on
$$;

-- DDL that can change a verdict writes a control row of its own, with watch_id 0. Event triggers are a superuser's; where
-- there is none, the gateway compares the catalog every two seconds instead. It must not fail anybody's DDL.
create function tidings.capture_ddl() returns event_trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  -- What is temporary is nobody else's: no policy can refer to it. A DROP lists nothing here, and counts.
  if exists (select from pg_catalog.pg_event_trigger_ddl_commands())
     and not exists (select from pg_catalog.pg_event_trigger_ddl_commands() c where c.schema_name is distinct from 'pg_temp') then
    return;
  end if;
  insert into tidings.changes (watch_id, slot, op)
  values (0, tidings.slot_at(pg_catalog.clock_timestamp()), 'C');
  perform pg_catalog.pg_notify('tidings', '');
exception when others then
  raise warning 'tidings could not note this command: %', sqlerrm;
end
$$;

do $$
begin
  drop event trigger if exists tidings_ddl;
  create event trigger tidings_ddl on ddl_command_end
    when tag in ('CREATE POLICY', 'ALTER POLICY', 'DROP POLICY', 'GRANT', 'REVOKE', 'ALTER TABLE', 'DROP TABLE',
                 'CREATE FUNCTION', 'ALTER FUNCTION', 'DROP FUNCTION', 'CREATE VIEW', 'ALTER VIEW', 'DROP VIEW',
                 'ALTER SCHEMA', 'DROP OWNED', 'ALTER TYPE', 'DROP TYPE')
    execute function tidings.capture_ddl();
exception when insufficient_privilege then
  null;
end
$$;

revoke execute on function tidings.only_grows(pg_node_tree), tidings.dependencies(regclass), tidings.sync_depended(), tidings.depending() from public;
grant execute on function tidings.only_grows(pg_node_tree), tidings.dependencies(regclass), tidings.sync_depended(), tidings.depending() to tidings_gateway;
