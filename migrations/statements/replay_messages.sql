-- The last messages of a private topic, newest first, and the snapshot by which they were found: without messages, one row with
-- just that. $1 sub-topic, $2 since when, in milliseconds since 1970, $3 how many at most,
-- $4 how many bytes of payload.
select pg_catalog.pg_current_snapshot()::text as seen, r.id::text, r.event, r.payload, r.binary_payload
  from (select) present
  left join tidings.replay_messages($1, pg_catalog.to_timestamp($2::double precision / 1000), $3, $4) r on true
