-- The tables of the load test: chat sessions with an owner, and their messages. Needs the schema `auth` and the role
-- `authenticated`, which `tidings migrate` makes where they are absent. May be loaded again.

-- A chat_messages that somebody else made is not ours to change.
do $$
begin
  if to_regprocedure('auth.jwt()') is null then
    raise exception 'there is no auth.jwt() in this database'
      using hint = 'Run `tidings migrate` against it first.';
  end if;
  if to_regclass('public.chat_messages') is not null
     and obj_description(to_regclass('public.chat_messages'), 'pg_class') is distinct from 'made by the Tidings load test' then
    raise exception 'this database has a chat_messages table that the load test did not make'
      using hint = 'Use an empty database for load tests.';
  end if;
end
$$;

create table if not exists public.chat_sessions (
  id         uuid primary key default gen_random_uuid(),
  user_id    text not null,
  title      text not null default 'New chat',
  created_at timestamptz not null default now()
);
create index if not exists chat_sessions_user_id_idx on public.chat_sessions (user_id);

create table if not exists public.chat_messages (
  id         uuid primary key default gen_random_uuid(),
  session_id uuid not null references public.chat_sessions (id) on delete cascade,
  role       text not null default 'user' check (role in ('user', 'assistant', 'system')),
  content    text not null,
  model      text,
  -- Who wrote it and the how many-th it is: {"run", "w", "j", "n"}, see src/frame.rs.
  metadata   jsonb not null default '{}',
  created_at timestamptz not null default now()
);
create index if not exists chat_messages_session_created_idx on public.chat_messages (session_id, created_at);
comment on table public.chat_messages is 'made by the Tidings load test';

alter table public.chat_sessions enable row level security;
alter table public.chat_messages enable row level security;
grant select on public.chat_sessions to authenticated;
grant select, insert on public.chat_messages to authenticated;

drop policy if exists "own sessions" on public.chat_sessions;
create policy "own sessions" on public.chat_sessions for select to authenticated
  using (user_id = (select auth.jwt() ->> 'sub'));

drop policy if exists "messages of own sessions" on public.chat_messages;
create policy "messages of own sessions" on public.chat_messages for select to authenticated
  using (session_id in (select id from public.chat_sessions where user_id = auth.jwt() ->> 'sub'));

drop policy if exists "post to own sessions" on public.chat_messages;
create policy "post to own sessions" on public.chat_messages for insert to authenticated
  with check (session_id in (select id from public.chat_sessions where user_id = auth.jwt() ->> 'sub'));

-- How people switch realtime on for a table; any server that speaks the protocol understands it.
do $$
begin
  if exists (select from pg_publication where pubname = 'supabase_realtime')
     and not exists (select from pg_publication_tables
                      where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = 'chat_messages') then
    alter publication supabase_realtime add table public.chat_messages;
  end if;
end
$$;
