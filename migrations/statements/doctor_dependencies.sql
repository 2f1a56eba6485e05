-- What `tidings doctor` tells of the tables on which the verdicts on a watched table ($1) rest, and whether their triggers
-- are as tidings.sync_depended makes them. A row without a table brings only the functions that hide what they read.
with syncing as (
  select p.proowner as owner, r.rolname as name
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    join pg_catalog.pg_roles r on r.oid = p.proowner
   where n.nspname = 'tidings' and p.proname = 'sync_depended'
)
select case when c.oid is not null then format('%I.%I', n.nspname, c.relname) end as name, x.columns, x.inserts, x.hidden,
       -- Those of them whose body PostgreSQL could parse.
       array(select h from unnest(x.hidden) h
              where exists (select from pg_catalog.pg_proc p join pg_catalog.pg_language l on l.oid = p.prolang
                             where p.oid = pg_catalog.to_regprocedure(h) and l.lanname = 'sql')) as parsable,
       c.relkind = 'r' and exists (select from pg_catalog.pg_inherits i where i.inhparent = c.oid) as inherited,
       state.worst as triggers,
       -- A running gateway does this by itself.
       state.worst in ('missing', 'outdated') and mend.statement = 'select * from tidings.sync_depended()' as mends_itself,
       mend.statement as mend
  from tidings.dependencies($1::oid::regclass) x
 cross join syncing
  left join pg_catalog.pg_class c on c.oid = x.depends_on
  left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join tidings.depended d on d.relation = x.depends_on
 cross join lateral (
         select bool_or(t.oid is null) as missing,
                bool_or(t.tgenabled not in ('O', 'A')) as disabled,
                bool_or(split_part(encode(t.tgargs, 'escape'), '\000', 1) <> d.id::text) as stale
           from (values ('tidings_dependency'), ('tidings_dependency_update'), ('tidings_dependency_truncate')) as wanted (name)
           left join pg_catalog.pg_trigger t on t.tgrelid = x.depends_on and t.tgname = wanted.name and not t.tgisinternal
       ) found
 cross join lateral (
         select case when c.oid is null then null
                     when d.id is null or found.missing then 'missing'
                     when found.stale then 'stale'
                     when not x.columns <@ d.columns or x.inserts > d.inserts then 'outdated'
                     when found.disabled then 'disabled'
                     else 'present' end as worst
       ) state
 cross join lateral (
         select case
           when state.worst is null or state.worst = 'present' then null
           when state.worst = 'disabled' then
             format('alter table %1$I.%2$I enable trigger tidings_dependency, enable trigger tidings_dependency_update, enable trigger tidings_dependency_truncate',
                    n.nspname, c.relname)
           when not pg_catalog.has_table_privilege(syncing.owner, c.oid, 'TRIGGER') then
             format('grant trigger on table %I.%I to %I', n.nspname, c.relname, syncing.name)
           -- To replace a trigger takes more than to make one.
           when d.id is not null and not pg_catalog.pg_has_role(syncing.owner, c.relowner, 'USAGE') then
             format('grant %I to %I', (select r.rolname from pg_catalog.pg_roles r where r.oid = c.relowner), syncing.name)
           when d.id is not null and state.worst <> 'outdated' then
             format('delete from tidings.depended where relation = %L::regclass; select * from tidings.sync_depended()',
                    format('%I.%I', n.nspname, c.relname))
           else 'select * from tidings.sync_depended()'
         end as statement
       ) mend
 order by name
