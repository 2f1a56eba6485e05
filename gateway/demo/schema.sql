-- The demo chat's tables: an AI chat whose logins come from elsewhere, so that the ids of users are text.
-- `tidings dev` loads this file once, into a database that has no chats yet; people.sql adds to it.

create table public.profiles (
  id           text primary key,
  email        text not null unique,
  display_name text,
  avatar_url   text,
  created_at   timestamptz not null default now(),
  updated_at   timestamptz not null default now()
);

create table public.chat_sessions (
  id                   uuid primary key default gen_random_uuid(),
  user_id              text not null references public.profiles (id) on delete cascade,
  title                text not null default 'New Chat',
  created_at           timestamptz not null default now(),
  updated_at           timestamptz not null default now(),
  last_message_at      timestamptz not null default now(),
  request_count        integer not null default 0,
  request_window_start timestamptz not null default now(),
  context              jsonb not null default '[]'
);
create index chat_sessions_user_id_idx on public.chat_sessions (user_id);

create table public.chat_messages (
  id         uuid primary key default gen_random_uuid(),
  session_id uuid not null references public.chat_sessions (id) on delete cascade,
  role       text not null check (role in ('user', 'assistant', 'system')),
  content    text not null,
  model      text,
  metadata   jsonb not null default '{}',
  created_at timestamptz not null default now()
);
create index chat_messages_session_created_idx on public.chat_messages (session_id, created_at);

create table public.system_prompts (
  id         uuid primary key default gen_random_uuid(),
  name       text not null unique,
  content    text not null,
  created_at timestamptz not null default now()
);

alter table public.profiles       enable row level security;
alter table public.chat_sessions  enable row level security;
alter table public.chat_messages  enable row level security;
alter table public.system_prompts enable row level security;

grant select, insert, update, delete on all tables in schema public to authenticated, service_role;
grant select on public.chat_messages to anon;

-- The product's own policies: the backend has everything, a browser may listen.
create policy "service role: profiles"       on public.profiles       for all to service_role using (true) with check (true);
create policy "service role: chat_sessions"  on public.chat_sessions  for all to service_role using (true) with check (true);
create policy "service role: chat_messages"  on public.chat_messages  for all to service_role using (true) with check (true);
create policy "service role: system_prompts" on public.system_prompts for all to service_role using (true) with check (true);
create policy "anon may listen to messages"  on public.chat_messages  for select to anon using (true);

-- With BetterAuth tokens at the gateway, an owner sees only what is theirs. The subject is text:
-- auth.uid(), which is a uuid, would raise an error here.
create policy "own sessions" on public.chat_sessions for all to authenticated
  using (user_id = auth.jwt() ->> 'sub') with check (user_id = auth.jwt() ->> 'sub');
create policy "messages of own sessions" on public.chat_messages for all to authenticated
  using (session_id in (select s.id from public.chat_sessions s where s.user_id = auth.jwt() ->> 'sub'))
  with check (session_id in (select s.id from public.chat_sessions s where s.user_id = auth.jwt() ->> 'sub'));

insert into public.profiles (id, email, display_name) values
  ('usr_Ada0000000000000000001', 'ada@example.com', 'Ada'),
  ('usr_Bob0000000000000000002', 'bob@example.com', 'Bob');
insert into public.chat_sessions (id, user_id, title) values
  ('00000000-0000-4000-8000-0000000000a1', 'usr_Ada0000000000000000001', 'Ada''s first chat'),
  ('00000000-0000-4000-8000-0000000000b1', 'usr_Bob0000000000000000002', 'Bob''s first chat');
insert into public.chat_messages (session_id, role, content, model, created_at) values
  ('00000000-0000-4000-8000-0000000000a1', 'user',      'Hello?', null, now() - interval '5 minutes'),
  ('00000000-0000-4000-8000-0000000000a1', 'assistant', 'Hello, Ada.', 'demo-model', now() - interval '4 minutes'),
  ('00000000-0000-4000-8000-0000000000b1', 'user',      'Anyone there?', null, now() - interval '3 minutes');
