-- What is new since a snapshot ($1), and in each row the place of the write-ahead log by which all of it had been written, and
-- the newest transaction of which changes may be gone. Both are looked up after the snapshot has been taken.
select (select pg_catalog.pg_current_wal_insert_lsn() - '0/0')::text, (select h.emptied from tidings.horizon h)::text, r.*
  from tidings.read($1::text::pg_snapshot) r
