-- What `tidings doctor` tells of the server and of the change log. One row.
select current_setting('server_version') as version,
       current_setting('server_version_num')::integer as version_number,
       current_user::text as login,
       (select r.rolsuper from pg_catalog.pg_roles r where r.rolname = current_user) as superuser,
       pg_catalog.has_database_privilege(current_database(), 'TEMP') as temporary,
       format('grant temporary on database %I to %I', current_database(), current_user) as temporary_mend,
       pg_catalog.pg_is_in_recovery() as standby,
       exists (select from pg_catalog.pg_event_trigger e
                where e.evtname = 'tidings_ddl' and e.evtenabled in ('O', 'A')) as ddl_told,
       -- As the migration makes it.
       case when exists (select from pg_catalog.pg_event_trigger e where e.evtname = 'tidings_ddl')
         then 'alter event trigger tidings_ddl enable'
         else $mend$create event trigger tidings_ddl on ddl_command_end
  when tag in ('CREATE POLICY', 'ALTER POLICY', 'DROP POLICY', 'GRANT', 'REVOKE', 'ALTER TABLE', 'DROP TABLE',
               'CREATE FUNCTION', 'ALTER FUNCTION', 'DROP FUNCTION', 'CREATE VIEW', 'ALTER VIEW', 'DROP VIEW',
               'ALTER SCHEMA', 'DROP OWNED', 'ALTER TYPE', 'DROP TYPE')
  execute function tidings.capture_ddl()$mend$
       end as ddl_mend,
       current_setting('track_commit_timestamp') = 'on' as commit_times,
       -- Whoever holds this lock reads all the time, and nobody rings for it.
       exists (select from pg_catalog.pg_locks l join pg_catalog.pg_database d on d.oid = l.database
                where d.datname = current_database() and l.locktype = 'advisory' and l.classid = 1953064037 and l.objid = 1
                  and l.mode = 'ExclusiveLock' and l.granted) as silenced,
       pg_catalog.pg_notification_queue_usage() as notify_queue,
       (select count(*) from pg_catalog.pg_stat_activity a
         where a.datname = current_database() and a.application_name = 'tidings'
           and a.pid <> pg_catalog.pg_backend_pid()) as sessions,
       tidings.retention()::text as retention,
       (select coalesce(sum(pg_catalog.pg_total_relation_size(p.relid)), 0)::bigint
          from pg_catalog.pg_partition_tree('tidings.changes') p) as log_bytes,
       (select count(*) from pg_catalog.pg_partition_tree('tidings.changes') p
         where p.isleaf and pg_catalog.pg_relation_size(p.relid) > 0) as slots_in_use
