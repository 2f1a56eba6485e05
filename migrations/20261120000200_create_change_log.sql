-- The change log: one row per change of a watched table. It is the truth; NOTIFY is only a doorbell.

-- It exists when `tidings migrate` runs this: the list of applied migrations is in it.
create schema if not exists tidings;
grant usage on schema tidings to tidings_gateway, tidings_capture;

-- Which database this is. Made with the schema, and so copied by a dump: a cursor also names the cluster.
create table tidings.installation (
  id uuid not null default gen_random_uuid()
);
insert into tidings.installation default values;

-- The tables that are watched. The id travels in the trigger and in the log instead of an oid, which a dump and
-- restore would change; the regclass follows a renamed table.
create table tidings.watched (
  id       integer generated always as identity primary key,
  relation regclass not null unique,
  origin   text not null check (origin in ('explicit', 'publication', 'setting')),
  since    timestamptz not null default now()
);
comment on column tidings.watched.origin is
  'explicit: tidings.watch(); publication: in supabase_realtime; setting: named by the gateway''s setting "watch"';

-- Retention. The log is a ring of ten slots. A change goes into the slot of its time; a slot whose every row is
-- older than the retention is emptied by TRUNCATE, which leaves no bloat and takes no time. Eight slots cover the
-- retention, one is being written, one is spare. Both numbers are functions with constant bodies, which the planner
-- inlines: a table of settings would cost every writer a look-up. tidings.set_retention replaces them.
create function tidings.retention() returns interval language sql immutable
  as $$ select interval '24 hours' $$;
create function tidings.slot_seconds() returns bigint language sql immutable
  as $$ select 10800::bigint $$;
-- Stable and not immutable, as extract() is: the planner does not inline a function that promises more than its body, and
-- calling this one would cost a writer more than all the rest of the trigger.
create function tidings.slot_at(at timestamptz) returns smallint language sql stable
  as $$ select ((extract(epoch from at)::bigint / tidings.slot_seconds()) % 10)::smallint $$;

create sequence tidings.changes_seq;

create table tidings.changes (
  seq        bigint    not null default nextval('tidings.changes_seq'),
  -- The transaction that made the change. Reading compares it with snapshots: sequence numbers do not commit in order.
  xid        xid8      not null default pg_current_xact_id(),
  at         timestamptz not null default clock_timestamp(),
  watch_id   integer   not null,
  slot       smallint  not null,
  op         "char"    not null, -- I insert, U update, D delete, T truncate
  -- json, not jsonb: the text is handed on as it is, and a json value that jsonb refuses must not fail the writer.
  new_record json,
  old_record json
) partition by list (slot);

create table tidings.changes_0 partition of tidings.changes for values in (0);
create table tidings.changes_1 partition of tidings.changes for values in (1);
create table tidings.changes_2 partition of tidings.changes for values in (2);
create table tidings.changes_3 partition of tidings.changes for values in (3);
create table tidings.changes_4 partition of tidings.changes for values in (4);
create table tidings.changes_5 partition of tidings.changes for values in (5);
create table tidings.changes_6 partition of tidings.changes for values in (6);
create table tidings.changes_7 partition of tidings.changes for values in (7);
create table tidings.changes_8 partition of tidings.changes for values in (8);
create table tidings.changes_9 partition of tidings.changes for values in (9);

-- The only index: a reader asks for transactions, never for sequence numbers.
create index changes_xid_idx on tidings.changes (xid);

grant insert on tidings.changes to tidings_capture;
grant usage on sequence tidings.changes_seq to tidings_capture;
grant select on tidings.changes, tidings.watched, tidings.installation to tidings_gateway;
