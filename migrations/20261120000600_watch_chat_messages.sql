-- The table that this server is named after is watched from the start, where it exists. Where it comes later, the
-- gateway's setting `watch` (default public.chat_messages) or the publication has it watched.

do $$
begin
  if to_regclass('public.chat_messages') is not null then
    perform tidings.attach('public.chat_messages', 'setting');
  end if;
end
$$;
