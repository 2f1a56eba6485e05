-- What Tidings sends of a new row. The peers' triggers use it, so that servers may hand it on as it is, and all frames are of one size.
create function public.change(message public.chat_messages) returns text language sql stable as $$
  select pg_catalog.concat(
    '{"schema":"public","table":"chat_messages","type":"INSERT","commit_timestamp":"',
    pg_catalog.to_char(pg_catalog.clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    '","columns":[{"name":"id","type":"uuid"},{"name":"session_id","type":"uuid"},{"name":"role","type":"text"},',
    '{"name":"content","type":"text"},{"name":"model","type":"text"},{"name":"metadata","type":"jsonb"},',
    '{"name":"created_at","type":"timestamptz"}],"record":',
    pg_catalog.row_to_json(message), ',"errors":null}')
$$;
