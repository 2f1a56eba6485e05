-- Reading the log exactly once, and keeping it short.

-- Which database this is: the cluster, the database in it, and this installation. A snapshot means nothing in another one.
create function tidings.identity() returns text language sql stable
set search_path = ''
as $$
  select pg_catalog.format('%s/%s/%s', control.system_identifier, d.oid, i.id)
    from pg_catalog.pg_control_system() control, pg_catalog.pg_database d, tidings.installation i
   where d.datname = pg_catalog.current_database()
$$;

-- What has been committed since the snapshot of the last read: first one row that holds only the new snapshot, then
-- the changes in order.
--
-- Why nothing is lost and nothing comes twice: a transaction is either visible in the old snapshot (then an earlier read
-- returned it) or it is not, which means that it began after the snapshot (xid >= xmax) or was running when it was
-- taken (xid in xip). Those are the two index conditions below. Of these transactions this statement sees just the
-- ones that have committed by now, which are the ones that are visible in the new snapshot.
--
-- The order by sequence number keeps the statements of a transaction, and changes of the same row, in their order: the
-- number is drawn while the row's lock is held. A transaction that began after another's commit has higher numbers.
-- Control rows (op C: somebody's right has changed) come before all else that a read returns: what was committed after the
-- loss may have drawn its number before it, and within one read the order of commits is not known.
create function tidings.read(since pg_snapshot)
returns table (snapshot text, place bigint, seq bigint, xid text, watch_id integer, op "char", committed_at text, age double precision, new_record json, old_record json)
language sql stable
as $$
  with unseen as (
    select c.* from tidings.changes c where c.xid >= pg_snapshot_xmax(since)
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

-- Empties every slot that holds nothing younger than the retention, but never the one that is being written or the
-- next one. Returns how many it emptied. A slot that somebody is reading is left for the next time: a TRUNCATE that
-- waits would make others wait behind it.
create function tidings.trim_changes() returns integer
language plpgsql security definer
set search_path = ''
set lock_timeout = '50ms'
as $$
declare
  current_slot constant smallint := tidings.slot_at(pg_catalog.clock_timestamp());
  oldest constant timestamptz := pg_catalog.clock_timestamp() - tidings.retention();
  before_scan pg_snapshot;
  emptied integer := 0;
  keep boolean;
begin
  for slot in 0 .. 9 loop
    continue when slot = current_slot or slot = (current_slot + 1) % 10;
    execute pg_catalog.format('select not exists (select from tidings.changes_%s)', slot) into keep;
    continue when keep;

    -- The scan takes seconds on a large slot, so it runs without a lock that anybody would wait for. What it cannot
    -- have seen is then looked up under the lock, by index: a writer with a clock of its own may have added a row.
    before_scan := pg_catalog.pg_current_snapshot();
    execute pg_catalog.format('select exists (select from tidings.changes_%s c where c.at >= $1)', slot)
      into keep using oldest;
    continue when keep;
    begin
      execute pg_catalog.format('lock table tidings.changes_%s in access exclusive mode', slot);
      execute pg_catalog.format('select exists (select from tidings.changes_%s c where c.xid >= $1)', slot)
        into keep using pg_catalog.pg_snapshot_xmin(before_scan);
      if not keep then
        execute pg_catalog.format('truncate tidings.changes_%s', slot);
        emptied := emptied + 1;
      end if;
    exception when lock_not_available or deadlock_detected then
      null;
    end;
  end loop;
  return emptied;
end
$$;

-- How long changes are kept, from one minute to a year. Runs as its caller, who must own the schema.
create function tidings.set_retention(keep interval) returns void
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
    greatest(1, pg_catalog.ceil(extract(epoch from keep) / 8)::bigint));
end
$$;

revoke execute on function tidings.identity(), tidings.read(pg_snapshot), tidings.trim_changes(), tidings.set_retention(interval) from public;
grant execute on function tidings.identity(), tidings.read(pg_snapshot), tidings.trim_changes() to tidings_gateway;
