-- Who holds or awaits which of the doorbell's locks. The list of locks is of one moment. $1: the process id of the session that
-- asks for the silence on behalf of this one, or 0. $2: whether to draw a transaction number if nobody silences the bell: every
-- transaction that was silenced has a lower one, for it had its number before it passed by the bell. $3: then also tell
-- everybody who listens that there was a silence.
with locks as materialized (
  select l.pid, l.objid, l.mode
    from pg_catalog.pg_locks l
   where l.locktype = 'advisory' and l.classid = 1953064037 and l.objsubid = 2
     and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
),
silencing as materialized (
  -- Waiting for it silences, too.
  select pid from locks where objid = 1 and mode = 'ExclusiveLock'
)
select exists (select from locks where objid = 3 and pid is distinct from pg_catalog.pg_backend_pid()) as company,
       exists (select from silencing where pid = $1::integer) as ours,
       exists (select from silencing where pid is distinct from $1::integer) as others,
       -- The branch is taken after the locks were looked at.
       case when $2::boolean and not exists (select from silencing) then pg_catalog.pg_current_xact_id()::text end as drawn,
       case when $3::boolean and not exists (select from silencing) then pg_catalog.pg_notify('tidings', 'silence over')::text end as told
