-- What keeps broadcasts from SQL and private channels from working, and the SQL that mends it.
select problem, mend from (
  select 'broadcasts from SQL do not arrive: realtime.messages has no trigger tidings_message' as problem,
         'select tidings.follow_messages()' as mend
   where not exists (select from pg_catalog.pg_trigger t
                      where t.tgrelid = to_regclass('realtime.messages') and t.tgname = 'tidings_message' and t.tgenabled in ('O', 'A'))
  union all
  -- Whoever else owns the table makes its partitions.
  select 'realtime.messages has no partition for tomorrow: messages go into the default one, which is not dropped as a whole',
         'select tidings.keep_messages()'
   where to_regclass('realtime.messages_default') is not null
     and to_regclass('realtime.messages_' || to_char((now() at time zone 'utc')::date + 1, 'YYYY_MM_DD')) is null
  union all
  select 'row-level security of realtime.messages is off: every role that may read it may use every private channel',
         'alter table realtime.messages enable row level security'
    from pg_catalog.pg_class c
   where c.oid = to_regclass('realtime.messages') and not c.relrowsecurity
) found
