-- What it takes to go on where one was: cursors that can be trusted, a log that knows what it has lost, and reading it again
-- for those who were away.

-- Signs cursors, so that only those count that a gateway of this database has made.
create table tidings.cursor_key (
  key bytea not null
);
insert into tidings.cursor_key
select pg_catalog.decode(pg_catalog.replace(pg_catalog.gen_random_uuid()::text || pg_catalog.gen_random_uuid()::text, '-', ''), 'hex');
grant select on tidings.cursor_key to tidings_gateway;

-- Every transaction up to this one may have had changes that are not in the log any more. One row.
create table tidings.horizon (
  emptied xid8 not null
);
insert into tidings.horizon values ('0');
-- Or a publication for all tables would forbid to change them: they have no key.
alter table tidings.horizon replica identity full;
alter table tidings.installation replica identity full;
grant select on tidings.horizon to tidings_gateway;

-- Whoever empties a slot: retention, or somebody by hand.
create function tidings.note_emptied() returns trigger
language plpgsql security definer
set search_path = ''
as $$
declare
  newest xid8;
begin
  -- With an older snapshot the newest change could not be seen.
  if pg_catalog.current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'the change log may be emptied in a transaction of level read committed only';
  end if;
  execute pg_catalog.format('select c.xid from %I.%I c order by c.xid desc limit 1', tg_table_schema, tg_table_name) into newest;
  update tidings.horizon set emptied = newest where emptied < newest;
  return null;
end
$$;
do $$
begin
  for slot in 0 .. 9 loop
    execute pg_catalog.format(
      'create trigger note_emptied before truncate on tidings.changes_%s for each statement execute function tidings.note_emptied()', slot);
  end loop;
end
$$;

-- A copy of the database has other transaction numbers than its original. `cluster` says where this installation is at home, and
-- `stamp` which transaction wrote this row: a dump that is restored in place was written by another.
alter table tidings.installation add column cluster text, add column stamp xid8;
update tidings.installation set stamp = pg_catalog.pg_current_xact_id(), cluster =
  (select pg_catalog.format('%s/%s', c.system_identifier, d.oid)
     from pg_catalog.pg_control_system() c, pg_catalog.pg_database d where d.datname = pg_catalog.current_database());

-- Since when a table is watched without a gap: cursors from before have missed changes that nobody captured.
alter table tidings.watched add column attached xid8 not null default pg_catalog.pg_current_xact_id();

-- Each time that a standby is promoted, or a backup recovered, a new timeline begins at some place of the write-ahead log. What had
-- been committed by then is on the new timeline, and what came later on the old one is lost. Null: nobody knows.
create table tidings.timelines (
  timeline integer primary key,
  began    pg_lsn
);

-- A crash takes transaction numbers back that had been given out: of transactions that were rolled back, and of those that had not
-- waited for the disk. Others get them then. `reused` is the first number that may have been given out twice; null: nobody knows.
create table tidings.crashes (
  crash  integer generated always as identity primary key,
  reused xid8
);
-- PostgreSQL empties unlogged tables after a crash, and only then.
create unlogged table tidings.since_crash (
  noted_at timestamptz not null
);
insert into tidings.since_crash values (pg_catalog.clock_timestamp());

create function tidings.is_at_home(installation tidings.installation, home text, written xid) returns boolean
language sql stable
set search_path = ''
as $$
  select installation.cluster = home and installation.stamp::xid::text = written::text
$$;

-- For a gateway that starts to read. One row: which database this is, the key for its cursors, its timelines, the horizon, and
-- the present snapshot.
create function tidings.begin_reading()
returns table (identity text, key bytea, timeline integer, timelines json, emptied text, snapshot text, crashes json)
language plpgsql security definer
set search_path = ''
set lock_timeout = '5s'
as $$
declare
  -- The first eight digits of a segment's name.
  present constant integer := ('x' || pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8))::bit(32)::integer;
  home    text;
  known   boolean;
begin
  select pg_catalog.format('%s/%s', c.system_identifier, d.oid) into home
    from pg_catalog.pg_control_system() c, pg_catalog.pg_database d where d.datname = pg_catalog.current_database();
  if exists (select from tidings.installation i where not tidings.is_at_home(i, home, i.xmin)) then
    -- Two gateways may start at once.
    perform pg_catalog.pg_advisory_xact_lock(1953064037, 2);
    update tidings.installation i set id = pg_catalog.gen_random_uuid(), cluster = home, stamp = pg_catalog.pg_current_xact_id()
     where not tidings.is_at_home(i, home, i.xmin);
    if found then
      truncate tidings.changes;
      update tidings.horizon h set emptied = '0';
      delete from tidings.log_marks;
      truncate tidings.timelines;
      truncate tidings.crashes;
    end if;
  end if;
  -- After a crash there is such a place, too, but it is not where the timeline began. Only the recovery of a standby or a backup
  -- knows the time of what it has replayed.
  insert into tidings.timelines
  values (present, case when pg_catalog.pg_last_xact_replay_timestamp() is not null then pg_catalog.pg_last_wal_replay_lsn() end)
  on conflict do nothing;
  known := not found;

  if not exists (select from tidings.since_crash) then
    perform pg_catalog.pg_advisory_xact_lock(1953064037, 2);
    insert into tidings.since_crash
    select pg_catalog.clock_timestamp() where not exists (select from tidings.since_crash);
    -- On a timeline that is new, its beginning says it all. Recovery ends with a checkpoint of the kind that begins where it stands.
    -- While that is the last one, it says which number came next.
    if found and known then
      insert into tidings.crashes (reused)
      select case when c.redo_lsn = c.checkpoint_lsn
               then (pg_catalog.split_part(c.next_xid, ':', 1)::numeric * 4294967296 + pg_catalog.split_part(c.next_xid, ':', 2)::numeric)::text::xid8 end
        from pg_catalog.pg_control_checkpoint() c;
    end if;
  end if;

  return query
    select i.id::text, c.key, present,
           (select pg_catalog.json_agg(pg_catalog.json_build_object('timeline', t.timeline, 'began', t.began - '0/0') order by t.timeline)
              from tidings.timelines t),
           h.emptied::text, pg_catalog.pg_current_snapshot()::text,
           (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('crash', k.crash, 'reused', k.reused::text::numeric) order by k.crash), '[]')
              from tidings.crashes k)
      from tidings.installation i, tidings.cursor_key c, tidings.horizon h;
end
$$;

-- The database has lost changes that a gateway has handed on: nothing that was said of it before holds. Gateways that find this at
-- the same time make one new beginning.
create function tidings.begin_anew(known text) returns boolean
language plpgsql security definer
set search_path = ''
as $$
begin
  update tidings.installation i set id = pg_catalog.gen_random_uuid(), stamp = pg_catalog.pg_current_xact_id() where i.id::text = known;
  return found;
end
$$;

-- As before, and one thing more: a transaction number that has not been given out yet can only be from another cluster.
create or replace function tidings.read(since pg_snapshot)
returns table (snapshot text, place bigint, seq bigint, xid text, watch_id integer, op "char", committed_at text, age double precision, new_record json, old_record json)
language sql stable
as $$
  with unseen as (
    select c.* from tidings.changes c where c.xid >= pg_snapshot_xmax(since) and c.xid < pg_snapshot_xmax(pg_current_snapshot())
    union all
    select c.* from tidings.changes c where c.xid = any (array(select pg_snapshot_xip(since)))
  )
  select pg_current_snapshot()::text, null::bigint, null::bigint, null::text, null::integer, null::"char", null::text, null::double precision, null::json, null::json
  union all
  select null,
         case u.op when 'C' then 0 else u.seq end,
         u.seq, u.xid::text, u.watch_id, u.op,
         to_char(
           coalesce(
             -- The server remembers commit times only if it was told to.
             case when current_setting('track_commit_timestamp') = 'on' then pg_xact_commit_timestamp(u.xid::xid) end,
             u.at
           ) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
         -- Seconds, by the clock that wrote the change.
         extract(epoch from clock_timestamp() - u.at)::double precision,
         u.new_record, u.old_record
    from unseen u
  order by 2 nulls first, 3
$$;

-- Reads the log again, for those who were away: changes of one table that `since` does not see and that come after a sequence
-- number, in order. If `key` names a column, only rows whose value in it is one of `keys`, which are JSON texts as the log has
-- them, and at most so many. `upto` ends the search; what the reader has seen of the transactions in between it knows best itself.
create function tidings.reread(since pg_snapshot, upto xid8, past bigint, watch integer, key text, keys text[], most bigint)
returns table (seq bigint, xid text, op "char", committed_at text, new_record json, old_record json)
language sql stable
as $$
  with missed as (
    select c.* from tidings.changes c
     where c.xid >= pg_snapshot_xmax(since) and c.xid < upto
    union all
    select c.* from tidings.changes c where c.xid = any (array(select pg_snapshot_xip(since)))
  )
  select m.seq, m.xid::text, m.op,
         to_char(
           coalesce(case when current_setting('track_commit_timestamp') = 'on' then pg_xact_commit_timestamp(m.xid::xid) end, m.at)
             at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
         m.new_record, m.old_record
    from missed m
   where m.watch_id = watch and m.seq > past and m.op in ('I', 'U', 'D')
     -- The list is turned into a hash table once.
     and (key is null or (coalesce(m.new_record, m.old_record) -> key)::text in (select unnest(keys)))
   order by m.seq
   limit most
$$;

-- The ring turns so that six slots cover the retention. One is being written and one comes next; two are left for those who empty
-- them to be late. With eight, a slot would become the next one at the moment in which its last change has been kept for long enough.
create or replace function tidings.slot_seconds() returns bigint language sql immutable
  as $$ select 14400::bigint $$;

-- How long changes are kept, from one minute to a year. Runs as its caller, who must own the schema.
create or replace function tidings.set_retention(keep interval) returns void
language plpgsql
set search_path = ''
as $$
begin
  if keep is null or keep < interval '1 minute' or keep > interval '366 days' then
    raise exception 'retention % is out of range: from 1 minute to 366 days', keep using errcode = 'invalid_parameter_value';
  end if;
  execute pg_catalog.format(
    'create or replace function tidings.retention() returns interval language sql immutable as $f$ select interval %L $f$', keep);
  execute pg_catalog.format(
    'create or replace function tidings.slot_seconds() returns bigint language sql immutable as $f$ select %s::bigint $f$',
    greatest(1, pg_catalog.ceil(extract(epoch from keep) / 6)::bigint));
end
$$;

-- What had been committed when: some sixty marks over the retention. They tell how long a change has been in the log since its
-- commit, which its own time does not: a transaction may hold it back, and clocks are set.
create table tidings.log_marks (
  id       bigint generated always as identity primary key,
  noted_at timestamptz not null,
  seen     pg_snapshot not null
);

-- Whether a slot has a change that `seen` does not see. By index.
create function tidings.is_young(slot integer, seen pg_snapshot) returns boolean
language plpgsql
set search_path = ''
-- The planner expects many such changes, of which a scan would find the first one soon. There is none, and the slot is large.
set enable_seqscan = off
as $$
declare
  young boolean;
begin
  execute pg_catalog.format(
    'select exists (select from tidings.changes_%1$s c where c.xid >= pg_catalog.pg_snapshot_xmax($1))
         or exists (select from tidings.changes_%1$s c where c.xid = any (array(select pg_catalog.pg_snapshot_xip($1))))', slot)
    into young using seen;
  return young;
end
$$;

-- Empties a slot whose every change was committed longer ago than the retention, but never the one that is being written or the
-- next one. Returns how many it emptied: one at most, since a slot that is being emptied can be read by nobody until the
-- transaction ends. It makes one attempt to lock a slot. One that somebody is using is left for another time: a TRUNCATE that waits
-- makes others wait behind it.
create or replace function tidings.trim_changes() returns integer
language plpgsql security definer
set search_path = ''
set lock_timeout = '50ms'
as $$
declare
  present   constant timestamptz := pg_catalog.clock_timestamp();
  spacing   constant interval := tidings.retention() / 64;
  written   constant smallint := tidings.slot_at(present);
  last_look timestamptz;
  unwatched interval;
  settled   tidings.log_marks;
  slot_     integer;
begin
  -- One at a time; whoever comes second has nothing to do.
  if not pg_catalog.pg_try_advisory_xact_lock(1953064037, 4) then
    return 0;
  end if;

  -- A mark of the future was made before the clock was set back. One that has seen what has not happened is from another database.
  delete from tidings.log_marks m
   where m.noted_at > present
      or pg_catalog.pg_snapshot_xmax(m.seen) > pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot());
  select pg_catalog.max(m.noted_at) into last_look from tidings.log_marks m;
  -- Time in which nobody looked does not count: the clock may have been set forward, and if every gateway was away, so was
  -- everybody who would have read the log.
  unwatched := present - last_look - greatest(2 * spacing, interval '15 seconds');
  if unwatched > interval '0' then
    update tidings.log_marks m set noted_at = m.noted_at + unwatched;
    last_look := last_look + unwatched;
  end if;
  if last_look is null or present - last_look >= spacing then
    insert into tidings.log_marks (noted_at, seen) values (present, pg_catalog.pg_current_snapshot());
  end if;

  select m.* into settled from tidings.log_marks m
   where m.noted_at <= present - tidings.retention() order by m.noted_at desc, m.id desc limit 1;
  if not found then
    return 0;
  end if;
  delete from tidings.log_marks m where m.noted_at <= settled.noted_at and m.id <> settled.id;

  -- By chance, so that one that is always in use does not keep the others from their turn.
  for slot_ in select s from pg_catalog.generate_series(0, 9) s order by pg_catalog.random() loop
    continue when slot_ = written or slot_ = (written + 1) % 10;
    continue when pg_catalog.pg_relation_size(pg_catalog.format('tidings.changes_%s', slot_)::regclass) = 0;
    continue when tidings.is_young(slot_, settled.seen);
    begin
      execute pg_catalog.format('lock table tidings.changes_%s in access exclusive mode', slot_);
      -- A writer that was held up may have come late.
      if tidings.is_young(slot_, settled.seen) then
        return 0;
      end if;
      execute pg_catalog.format('truncate tidings.changes_%s', slot_);
      return 1;
    exception when lock_not_available or deadlock_detected then
      return 0;
    end;
  end loop;
  return 0;
end
$$;

-- What the log holds, for metrics: its size on disk with everything that belongs to it, the slots in use, and the seconds since the
-- oldest transaction of which it holds a change. Null: it is empty.
create function tidings.log_state() returns table (bytes bigint, slots integer, oldest double precision)
language sql stable security definer
set search_path = ''
set enable_seqscan = off
as $$
  select sum(pg_catalog.pg_total_relation_size(p.relid))::bigint,
         (count(*) filter (where pg_catalog.pg_relation_size(p.relid) > 0))::integer,
         (select extract(epoch from pg_catalog.clock_timestamp() - c.at)::double precision
            from tidings.changes c order by c.xid limit 1)
    from pg_catalog.pg_partition_tree('tidings.changes') p
   where p.isleaf
$$;

-- The statement that fetches the last rows of a table as whoever runs it, so that its row-level security chooses. It returns
-- the rows, the last one first, with the time of each and the present snapshot; where there is none, one row with just the
-- snapshot. `conditions` as for tidings.check_filter.
--
-- `wanted_order` names the column by which rows are last; without it, the one by which chats are usually ordered, or a primary key
-- that counts.
create function tidings.history_statement(relation regclass, columns text[], conditions json, wanted_order text, rows integer) returns text
language plpgsql stable
set search_path = ''
as $$
declare
  ordering text;
  type_    regtype;
  ties     text;
  parts    text;
  listed   text;
  moment   text;
  name_    name;
  nullable boolean;
begin
  select c.relname into name_ from pg_catalog.pg_class c where c.oid = history_statement.relation;
  select a.attname, a.atttypid::regtype, not a.attnotnull into ordering, type_, nullable
    from pg_catalog.pg_attribute a
   where a.attrelid = history_statement.relation and a.attnum > 0 and not a.attisdropped and a.attname = any (columns)
     and case when wanted_order is not null then a.attname = wanted_order
              else (a.attname in ('created_at', 'inserted_at') and a.atttypid in ('timestamptz'::regtype, 'timestamp'::regtype))
                or (a.atttypid in ('bigint'::regtype, 'integer'::regtype, 'smallint'::regtype)
                    and exists (select from pg_catalog.pg_index i
                                 where i.indrelid = a.attrelid and i.indisprimary and i.indnkeyatts = 1 and i.indkey[0] = a.attnum))
         end
   -- The time first: a primary key may count something else.
   order by a.atttypid in ('timestamptz'::regtype, 'timestamp'::regtype) desc, a.attname
   limit 1;
  if not found then
    if wanted_order is null then
      raise exception 'the order of the rows of % is not known: name a column with `order`', history_statement.relation;
    end if;
    raise exception 'invalid column for order %', wanted_order;
  end if;

  select pg_catalog.string_agg(', ' || pg_catalog.quote_ident(a.attname) || ' desc', '' order by pg_catalog.array_position(i.indkey::smallint[], a.attnum))
    into ties
    from pg_catalog.pg_index i
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey::smallint[])
   where i.indrelid = history_statement.relation and i.indisprimary and a.attname = any (columns) and a.attname <> ordering;
  select pg_catalog.string_agg(tidings.condition_sql(history_statement.relation, c.value), ' and ') into parts
    from pg_catalog.json_array_elements(conditions) c;
  select pg_catalog.string_agg(pg_catalog.quote_ident(name), ', ') into listed from pg_catalog.unnest(columns) name;
  moment := case when type_ = 'timestamptz'::regtype then pg_catalog.quote_ident(ordering) || ' at time zone ''UTC'''
                 when type_ = 'timestamp'::regtype then pg_catalog.quote_ident(ordering)
                 else 'pg_catalog.clock_timestamp() at time zone ''UTC''' end;

  -- An index gives the rows in their order only if the question is put like this. Rows without a value have no place in it.
  if nullable then
    parts := coalesce(parts || ' and ', '') || pg_catalog.format('%I is not null', ordering);
  end if;
  ordering := pg_catalog.quote_ident(ordering) || ' desc' || coalesce(ties, '');
  return pg_catalog.format(
    $statement$
    select present.snapshot, numbered.moment, numbered.record
      from (select pg_catalog.pg_current_snapshot()::text as snapshot) as present
      left join (
        select pg_catalog.to_char(found.moment, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as moment, found.record,
               pg_catalog.row_number() over () as place
          from (
            select %1$s as moment, (select pg_catalog.row_to_json(picked) from (select %2$s) as picked) as record
              from %4$s as %5$I
             where %6$s
             order by %3$s
             limit %7$s) as found) as numbered on true
     order by numbered.place
    $statement$,
    moment, listed, ordering, history_statement.relation, name_, coalesce(parts, 'true'), rows);
end
$$;

-- As before, with the transaction since which the table is watched.
drop function tidings.catalog();
create function tidings.catalog()
returns table (watch_id integer, relation oid, schema_name text, table_name text, inserts boolean, updates boolean,
               deletes boolean, full_identity boolean, attached text, columns json)
language sql stable
set search_path = ''
as $$
  select w.id, c.oid, n.nspname::text, c.relname::text,
         -- The publication's own flags count for the tables that it brought.
         w.origin <> 'publication' or p.pubinsert, w.origin <> 'publication' or p.pubupdate,
         w.origin <> 'publication' or p.pubdelete, c.relreplident = 'f', w.attached::text,
         (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
                   'name', a.attname,
                   'type', t.typname,
                   -- A domain is rendered and compared as its base type.
                   'base', coalesce(b.typname, t.typname),
                   'kind', t.typtype,
                   'category', t.typcategory,
                   'key', coalesce(a.attnum = any (i.indkey::smallint[]), false),
                   -- Equal values of such a column may differ in their bytes.
                   'deterministic', coalesce((select l.collisdeterministic from pg_catalog.pg_collation l where l.oid = a.attcollation), true)
                 ) order by a.attnum), '[]')
            from pg_catalog.pg_attribute a
            join pg_catalog.pg_type t on t.oid = a.atttypid
            left join pg_catalog.pg_type b on b.oid = t.typbasetype
            left join pg_catalog.pg_index i on i.indrelid = c.oid and i.indisprimary
           where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)
    from tidings.watched w
    join pg_catalog.pg_class c on c.oid = w.relation
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    left join pg_catalog.pg_publication p on p.pubname = 'supabase_realtime'
$$;

revoke execute on function tidings.catalog(), tidings.is_at_home(tidings.installation, text, xid), tidings.note_emptied(), tidings.is_young(integer, pg_snapshot), tidings.log_state(), tidings.begin_reading(), tidings.begin_anew(text), tidings.read(pg_snapshot),
  tidings.reread(pg_snapshot, xid8, bigint, integer, text, text[], bigint), tidings.history_statement(regclass, text[], json, text, integer) from public;
grant execute on function tidings.catalog(), tidings.log_state(), tidings.begin_reading(), tidings.begin_anew(text), tidings.read(pg_snapshot),
  tidings.reread(pg_snapshot, xid8, bigint, integer, text, text[], bigint), tidings.history_statement(regclass, text[], json, text, integer)
  to tidings_gateway;
