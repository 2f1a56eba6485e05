-- The usual way to hear of new rows, for comparison: a trigger that sends each row as the payload of a NOTIFY.
-- A payload has at most 7999 bytes, so longer rows send their key alone.
create function public.notify_row() returns trigger language plpgsql as $$
declare
  payload text := pg_catalog.row_to_json(new)::text;
begin
  if pg_catalog.octet_length(payload) > 7999 then
    payload := pg_catalog.json_build_object('id', new.id, 'session_id', new.session_id)::text;
  end if;
  perform pg_catalog.pg_notify('chat_messages', payload);
  return null;
end
$$;

create trigger notify_row after insert on public.chat_messages for each row execute function public.notify_row();
