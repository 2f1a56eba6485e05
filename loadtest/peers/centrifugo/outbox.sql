-- How Centrifugo reads from PostgreSQL: an outbox table, a consumer that empties it, and a NOTIFY that wakes it. The table is as in
-- Centrifugo's documentation, but for `json` in the place of `jsonb`, so that changes keep their bytes.
create table public.centrifugo_outbox (
  id         bigserial primary key,
  method     text not null,
  payload    json not null,
  partition  integer not null default 0,
  created_at timestamptz not null default now()
);

create function public.centrifugo_notify_partition_change() returns trigger language plpgsql as $$
begin
  perform pg_catalog.pg_notify('centrifugo_partition_change', new.partition::text);
  return new;
end
$$;

create trigger centrifugo_notify_partition_trigger after insert on public.centrifugo_outbox
  for each row execute function public.centrifugo_notify_partition_change();

create function public.publish_change() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  insert into public.centrifugo_outbox (method, payload)
  values ('publish', pg_catalog.concat('{"channel":"', new.session_id, '","data":', public.change(new), '}')::json);
  return null;
end
$$;

create trigger publish_change after insert on public.chat_messages for each row execute function public.publish_change();
