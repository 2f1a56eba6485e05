-- Chats of many people: each member of a chat may read it, and is a principal of its own.
create table public.chat_members (
  session_id uuid not null references public.chat_sessions (id) on delete cascade,
  user_id    text not null,
  primary key (user_id, session_id)
);
alter table public.chat_members enable row level security;
grant select on public.chat_members to authenticated;
create policy "own memberships" on public.chat_members for select to authenticated
  using (user_id = (select auth.jwt() ->> 'sub'));
create policy "messages of joined chats" on public.chat_messages for select to authenticated
  using (session_id in (select session_id from public.chat_members where user_id = auth.jwt() ->> 'sub'));
