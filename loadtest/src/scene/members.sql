-- Chats of many people: each member of a chat may read it, and is a principal of its own. The same for the private channel of
-- the chat, `chat:<id>`. May be loaded again.
create table if not exists public.chat_members (
  session_id uuid not null references public.chat_sessions (id) on delete cascade,
  user_id    text not null,
  primary key (user_id, session_id)
);
alter table public.chat_members enable row level security;
grant select on public.chat_members to authenticated;
drop policy if exists "own memberships" on public.chat_members;
create policy "own memberships" on public.chat_members for select to authenticated
  using (user_id = (select auth.jwt() ->> 'sub'));
drop policy if exists "messages of joined chats" on public.chat_messages;
create policy "messages of joined chats" on public.chat_messages for select to authenticated
  using (session_id in (select session_id from public.chat_members where user_id = auth.jwt() ->> 'sub'));

drop policy if exists "members of the chat receive" on realtime.messages;
create policy "members of the chat receive" on realtime.messages for select to authenticated
  using (exists (select from public.chat_members m
                  where m.user_id = auth.jwt() ->> 'sub' and 'chat:' || m.session_id = realtime.topic()));
drop policy if exists "members of the chat send" on realtime.messages;
create policy "members of the chat send" on realtime.messages for insert to authenticated
  with check (exists (select from public.chat_members m
                       where m.user_id = auth.jwt() ->> 'sub' and 'chat:' || m.session_id = realtime.topic()));
