-- What `tidings doctor` tells of each watched table beside tidings.catalog(): who brought it, its row-level security, and
-- whether its triggers are as tidings.attach made them.
with trigger_state as (
  select w.id, wanted.name,
         case when t.oid is null then 'missing'
              when t.tgenabled not in ('O', 'A') then 'disabled'
              when split_part(encode(t.tgargs, 'escape'), '\000', 1) <> w.id::text then 'stale'
              else 'present' end as state
    from tidings.watched w
   cross join (values ('tidings_capture'), ('tidings_truncate')) as wanted (name)
    left join pg_catalog.pg_trigger t on t.tgrelid = w.relation and t.tgname = wanted.name and not t.tgisinternal
)
select c.relation, format('%I.%I', c.schema_name, c.table_name) as name, c.columns, w.origin,
       k.relrowsecurity as secured, k.relforcerowsecurity as forced,
       format('alter table %I.%I enable row level security', c.schema_name, c.table_name) as secure, k.relkind = 'p' as partitioned,
       k.relkind = 'r' and exists (select from pg_catalog.pg_inherits i where i.inhparent = c.relation) as inherited,
       state.worst as triggers,
       case state.worst
         when 'present' then null
         when 'disabled' then format('alter table %1$I.%2$I enable trigger tidings_capture; alter table %1$I.%2$I enable trigger tidings_truncate',
                                     c.schema_name, c.table_name)
         else format('select tidings.unwatch(%1$L); select tidings.watch(%1$L)', format('%I.%I', c.schema_name, c.table_name))
       end as mend
  from tidings.catalog() c
  join tidings.watched w on w.id = c.watch_id
  join pg_catalog.pg_class k on k.oid = c.relation
 cross join lateral (
         select case when bool_or(s.state = 'missing') then 'missing' when bool_or(s.state = 'stale') then 'stale'
                     when bool_or(s.state = 'disabled') then 'disabled' else 'present' end as worst
           from trigger_state s where s.id = w.id) state
 -- Its rows are messages, not changes: doctor_messages.sql looks at it.
 where c.relation is distinct from to_regclass('realtime.messages')
 order by name
