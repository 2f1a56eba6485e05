-- The usual way for a server without a change log to hear of new rows: a trigger that sends each as the payload of a NOTIFY. A
-- payload has at most 7999 bytes; a longer one fails the insert.
create function public.notify_change() returns trigger language plpgsql as $$
begin
  perform pg_catalog.pg_notify('chat_messages', public.change(new));
  return null;
end
$$;

create trigger notify_change after insert on public.chat_messages for each row execute function public.notify_change();
