-- Whether session $1 is one of those that row-level security shows.
select exists (select from public.chat_sessions s where s.id = $1)
