-- The capture trigger, and what attaches it to tables.

-- Writes one row of the log per changed row, and rings the doorbell.
--
-- The settings below make the JSON independent of the writer's own: timestamps in UTC, ISO dates (inside ranges),
-- intervals as PostgreSQL writes them, floats in full, bytea as hex.
create function tidings.capture() returns trigger
language plpgsql security definer
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
    tg_argv[0]::integer,
    tidings.slot_at(pg_catalog.clock_timestamp()),
    pg_catalog.left(tg_op, 1)::"char",
    pg_catalog.row_to_json(new),
    pg_catalog.row_to_json(old)
  );

  -- The doorbell carries nothing: what has changed stands in the log. NOTIFY makes commits queue for one lock, so a
  -- gateway that reads continuously anyway holds this advisory lock exclusively, and nobody rings.
  if pg_catalog.pg_try_advisory_xact_lock_shared(1953064037, 1) then
    perform pg_catalog.pg_notify('tidings', '');
  end if;
  return null;
end
$$;

-- TRUNCATE fires once per statement and has no rows.
create function tidings.capture_truncate() returns trigger
language plpgsql security definer
set search_path = ''
as $$
begin
  insert into tidings.changes (watch_id, slot, op)
  values (tg_argv[0]::integer, tidings.slot_at(pg_catalog.clock_timestamp()), 'T');

  if pg_catalog.pg_try_advisory_xact_lock_shared(1953064037, 1) then
    perform pg_catalog.pg_notify('tidings', '');
  end if;
  return null;
end
$$;

-- A function can only be given to a role that may create in its schema: for this one moment.
grant create on schema tidings to tidings_capture;
alter function tidings.capture() owner to tidings_capture;
alter function tidings.capture_truncate() owner to tidings_capture;
revoke create on schema tidings from tidings_capture;

-- Attaches the triggers and records the table as watched; what is watched already stays as it is. Returns the id.
-- The lock that CREATE TRIGGER takes waits for running writers while new ones wait for it, so it gives up soon.
create function tidings.attach(relation regclass, origin text) returns integer
language plpgsql security definer
set search_path = ''
set lock_timeout = '2s'
as $$
declare
  kind     "char";
  leaf     boolean;
  space    text;
  existing integer;
begin
  select c.relkind, c.relispartition, n.nspname into kind, leaf, space
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
   where c.oid = attach.relation;

  if space in ('tidings', 'pg_catalog', 'information_schema') then
    raise exception '% cannot be watched: it belongs to the machinery', attach.relation using errcode = 'wrong_object_type';
  elsif kind not in ('r', 'p') then
    raise exception '% cannot be watched: it is not a table', attach.relation using errcode = 'wrong_object_type',
      hint = 'A view has no rows of its own: watch the tables that it reads.';
  elsif leaf then
    raise exception '% cannot be watched: it is a partition', attach.relation using errcode = 'wrong_object_type',
      hint = pg_catalog.format('Its changes are reported by its root: select tidings.watch(%L)',
                               pg_catalog.pg_partition_root(attach.relation)::text);
  end if;

  -- Asked before CREATE TRIGGER takes its lock, which it does before it looks at the rights.
  if not pg_catalog.has_table_privilege(attach.relation, 'TRIGGER') then
    raise exception 'role % may not create a trigger on %', current_user, attach.relation
      using errcode = 'insufficient_privilege',
            hint = pg_catalog.format('grant trigger on table %s to %I', attach.relation, current_user);
  end if;

  -- Two gateways may start at once.
  perform pg_catalog.pg_advisory_xact_lock(1953064037, 2);
  select w.id into existing from tidings.watched w where w.relation = attach.relation;
  if found then
    update tidings.watched w set origin = attach.origin where w.id = existing and attach.origin = 'explicit';
    return existing;
  end if;

  insert into tidings.watched (relation, origin) values (attach.relation, attach.origin) returning id into existing;
  begin
    execute pg_catalog.format(
      'create trigger tidings_capture after insert or update or delete on %s for each row execute function tidings.capture(%L)',
      attach.relation, existing);
    execute pg_catalog.format(
      'create trigger tidings_truncate after truncate on %s for each statement execute function tidings.capture_truncate(%L)',
      attach.relation, existing);
  exception when insufficient_privilege then
    raise exception 'role % may not create a trigger on %', current_user, attach.relation
      using errcode = 'insufficient_privilege',
            hint = pg_catalog.format('grant trigger on table %s to %I', attach.relation, current_user);
  end;
  return existing;
end
$$;

create function tidings.detach(relation regclass) returns boolean
language plpgsql security definer
set search_path = ''
set lock_timeout = '2s'
as $$
begin
  execute pg_catalog.format('drop trigger if exists tidings_capture on %s', detach.relation);
  execute pg_catalog.format('drop trigger if exists tidings_truncate on %s', detach.relation);
  delete from tidings.watched w where w.relation = detach.relation;
  return found;
exception when insufficient_privilege then
  raise exception 'role % may not drop the trigger on %: only the table''s owner may', current_user, detach.relation
    using errcode = 'insufficient_privilege',
          hint = pg_catalog.format('as the owner: drop trigger tidings_capture on %1$s; drop trigger tidings_truncate on %1$s;', detach.relation);
end
$$;

-- For people: watch a table until it is unwatched, whatever the publication says.
create function tidings.watch(relation regclass) returns integer language sql
  as $$ select tidings.attach(relation, 'explicit') $$;
create function tidings.unwatch(relation regclass) returns boolean language sql
  as $$ select tidings.detach(relation) $$;

-- Makes what is watched agree with the publication and with the gateway's setting `watch`. Cheap when nothing has
-- changed. One table that cannot be watched does not keep the others from it: it is reported, and tried again next time.
create function tidings.sync_watched(setting text[]) returns table (relation text, action text, problem text, mend text)
language plpgsql security definer
set search_path = ''
as $$
declare
  wanted record;
begin
  delete from tidings.watched w where not exists (select from pg_catalog.pg_class c where c.oid = w.relation);

  for wanted in
    -- With publish_via_partition_root off the catalog lists partitions; the root reports for them.
    select distinct coalesce(pg_catalog.pg_partition_root(c.oid), c.oid)::regclass as table_, 'publication' as origin
      from pg_catalog.pg_publication_tables p
      join pg_catalog.pg_namespace n on n.nspname = p.schemaname
      join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
     where p.pubname = 'supabase_realtime' and p.schemaname not in ('tidings', 'realtime')
    union
    select pg_catalog.to_regclass(name), 'setting' from pg_catalog.unnest(setting) name
     where pg_catalog.to_regclass(name) is not null
  loop
    if not exists (select from tidings.watched w where w.relation = wanted.table_) then
      relation := wanted.table_::text;
      action := 'watch';
      problem := null;
      mend := null;
      begin
        perform tidings.attach(wanted.table_, wanted.origin);
      exception when others then
        get stacked diagnostics problem = message_text, mend = pg_exception_hint;
      end;
      return next;
    end if;
  end loop;

  for wanted in
    select w.relation as table_ from tidings.watched w
     where w.origin = 'publication'
       and not exists (
         select from pg_catalog.pg_publication_tables p
           join pg_catalog.pg_namespace n on n.nspname = p.schemaname
           join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
          where p.pubname = 'supabase_realtime'
            and coalesce(pg_catalog.pg_partition_root(c.oid), c.oid) = w.relation)
       and not exists (select from pg_catalog.unnest(setting) name where pg_catalog.to_regclass(name) = w.relation)
  loop
    relation := wanted.table_::text;
    action := 'unwatch';
    problem := null;
    mend := null;
    begin
      perform tidings.detach(wanted.table_);
    exception when others then
      get stacked diagnostics problem = message_text, mend = pg_exception_hint;
    end;
    return next;
  end loop;
end
$$;

revoke execute on function tidings.attach(regclass, text), tidings.detach(regclass), tidings.watch(regclass),
  tidings.unwatch(regclass), tidings.sync_watched(text[]) from public;
grant execute on function tidings.attach(regclass, text), tidings.detach(regclass), tidings.watch(regclass),
  tidings.unwatch(regclass), tidings.sync_watched(text[]) to tidings_gateway;
