-- Broadcast from SQL, and the policies of private channels: the table realtime.messages with the functions that send through
-- it, as a Supabase database has them. Each is made only where it is absent.
--
-- A row of realtime.messages that is committed is a message to everybody who is on its topic. It comes to the gateway through
-- the change log, like every other change: in the order of commits, once, and also after the gateway was away for a moment.

do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'supabase_realtime_admin') then
    -- Roles belong to the cluster: another database may be making it at this moment.
    begin
      create role supabase_realtime_admin nologin noinherit;
    exception when duplicate_object or unique_violation then
      null;
    end;
  end if;
end
$$;

create schema if not exists realtime;

do $$
begin
  if to_regclass('realtime.messages') is null then
    grant usage on schema realtime to anon, authenticated, service_role, supabase_realtime_admin;

    -- The order of the columns is part of what applications rely on.
    create table realtime.messages (
      topic          text not null,
      extension      text not null,
      payload        jsonb,
      event          text,
      private        boolean default false,
      -- By the wall clock of UTC, whatever the time zone of the writer's session.
      updated_at     timestamp not null default (now() at time zone 'utc'),
      inserted_at    timestamp not null default (now() at time zone 'utc'),
      id             uuid not null default gen_random_uuid(),
      binary_payload bytea,
      primary key (id, inserted_at),
      constraint messages_payload_exclusive check (payload is null or binary_payload is null)
    ) partition by range (inserted_at);
    -- For days that have no partition, so that nobody's insert fails for want of one.
    create table realtime.messages_default partition of realtime.messages default;
    create index messages_inserted_at_topic_index on realtime.messages (inserted_at desc, topic)
      where extension = 'broadcast' and private;

    -- Without policies nobody may do anything here but the owner and BYPASSRLS roles: private channels are closed until somebody
    -- says whom they are open to.
    alter table realtime.messages enable row level security;
    -- The policies are the table's: nobody gets around them by naming a partition.
    alter table realtime.messages_default enable row level security;
    grant select, insert on realtime.messages to anon, authenticated, service_role;
    -- But for the time: a row that moves into another partition would be sent again.
    grant update (topic, extension, payload, event, private, updated_at, id, binary_payload) on realtime.messages
      to anon, authenticated, service_role;
    grant all on realtime.messages to supabase_realtime_admin;
    comment on table realtime.messages is
      'Messages from SQL, kept for 72 hours. Its policies say who may use private channels: SELECT policies who may receive, INSERT policies who may send.';
  end if;

  if to_regprocedure('realtime.topic()') is null then
    create function realtime.topic() returns text language sql stable
      as $f$ select nullif(current_setting('realtime.topic', true), '') $f$;
    comment on function realtime.topic() is 'The topic of the private channel that is asked about, for use in policies on realtime.messages.';
  end if;

  -- A message that cannot be sent must not fail the transaction that wanted to send it: it becomes a warning.
  if to_regprocedure('realtime.send(jsonb, text, text, boolean)') is null then
    create function realtime.send(payload jsonb, event text, topic text, private boolean default true) returns void
    language plpgsql
    as $f$
    declare
      message_id constant uuid := pg_catalog.gen_random_uuid();
      final      jsonb := payload;
    begin
      if pg_catalog.jsonb_typeof(payload) <> 'object' then
        raise exception 'the payload must be a JSON object, this is a JSON %', pg_catalog.jsonb_typeof(payload);
      end if;
      if payload is not null and not payload operator(pg_catalog.?) 'id' then
        final := pg_catalog.jsonb_set(payload, '{id}', pg_catalog.to_jsonb(message_id));
      end if;
      perform pg_catalog.set_config('realtime.topic', topic, true);
      insert into realtime.messages (id, payload, event, topic, private, extension)
      values (message_id, final, event, topic, private, 'broadcast');
    exception when others then
      raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
    end
    $f$;
  end if;

  if to_regprocedure('realtime.send_binary(bytea, text, text, boolean)') is null then
    create function realtime.send_binary(payload bytea, event text, topic text, private boolean default true) returns void
    language plpgsql
    as $f$
    begin
      perform pg_catalog.set_config('realtime.topic', topic, true);
      insert into realtime.messages (id, binary_payload, event, topic, private, extension)
      values (pg_catalog.gen_random_uuid(), payload, event, topic, private, 'broadcast');
    exception when others then
      raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
    end
    $f$;
  end if;

  -- For row triggers: perform realtime.broadcast_changes('topic:' || new.id, tg_op, tg_op, tg_table_name, tg_table_schema, new, old)
  if to_regprocedure('realtime.broadcast_changes(text, text, text, text, text, record, record, text)') is null then
    create function realtime.broadcast_changes(topic_name text, event_name text, operation text, table_name text, table_schema text,
                                               new record, old record, level text default 'ROW') returns void
    language plpgsql
    as $f$
    begin
      if level = 'STATEMENT' then
        raise exception 'Failed to process the row: function can only be triggered for each row, not for each statement';
      elsif operation not in ('INSERT', 'UPDATE', 'DELETE') then
        raise exception 'Failed to process the row: Unexpected operation type: %', operation;
      end if;
      perform realtime.send(
        pg_catalog.jsonb_build_object(
          'old_record', pg_catalog.to_jsonb(old), 'record', pg_catalog.to_jsonb(new),
          'operation', operation, 'table', table_name, 'schema', table_schema),
        event_name, topic_name);
    end
    $f$;
  end if;
end
$$;

-- How long a message that a client asked to be stored may be replayed, where it said so.
create table tidings.expiring_messages (
  id         uuid primary key,
  expires_at timestamptz not null
);
create index expiring_messages_expires_at_idx on tidings.expiring_messages (expires_at);

-- Makes the partitions of realtime.messages from yesterday to three days ahead, and drops those whose every message is older than 72 hours.
-- Whoever else owns the table keeps it by himself. Waits for nobody: a partition that cannot be made or dropped now is left for the next time.
create function tidings.keep_messages() returns void
language plpgsql security definer
set search_path = ''
set lock_timeout = '200ms'
as $$
declare
  today constant date := (pg_catalog.now() at time zone 'utc')::date;
  oldest constant timestamp := (pg_catalog.now() at time zone 'utc') - interval '72 hours';
  part  record;
  taken boolean;
begin
  if not exists (select from pg_catalog.pg_class c
                  where c.oid = pg_catalog.to_regclass('realtime.messages') and c.relkind = 'p'
                    and pg_catalog.pg_has_role(c.relowner, 'USAGE')
                    and pg_catalog.to_regclass('realtime.messages_default') is not null) then
    return;
  end if;
  -- Two gateways may come at once.
  if not pg_catalog.pg_try_advisory_xact_lock(1953064037, 5) then
    return;
  end if;

  for part in
    select 'messages_' || pg_catalog.to_char(d, 'YYYY_MM_DD') as name_, d as from_, d + 1 as to_
      from (select today + ahead as d from pg_catalog.generate_series(-1, 3) ahead) days
     where pg_catalog.to_regclass('realtime.messages_' || pg_catalog.to_char(d, 'YYYY_MM_DD')) is null
  loop
    begin
      -- What the default partition has taken meanwhile stays there.
      execute pg_catalog.format(
        'select exists (select from realtime.messages_default where inserted_at >= %L and inserted_at < %L)', part.from_, part.to_) into taken;
      continue when taken;
      execute pg_catalog.format('create table realtime.%I partition of realtime.messages for values from (%L) to (%L)',
                                part.name_, part.from_, part.to_);
      execute pg_catalog.format('alter table realtime.%I enable row level security', part.name_);
    exception when lock_not_available or check_violation or duplicate_table then
      null;
    end;
  end loop;

  for part in
    select c.relname as name_
      from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'realtime.messages'::regclass and c.relname ~ '^messages_\d{4}_\d{2}_\d{2}$'
       and pg_catalog.to_date(pg_catalog.right(c.relname, 10), 'YYYY_MM_DD') + 1 <= oldest
  loop
    begin
      execute pg_catalog.format('drop table realtime.%I', part.name_);
    exception when lock_not_available then
      null;
    end;
  end loop;
  delete from realtime.messages_default where inserted_at < oldest;

  delete from realtime.messages m using tidings.expiring_messages e where m.id = e.id and e.expires_at < pg_catalog.now();
  delete from tidings.expiring_messages e where e.expires_at < pg_catalog.now();
end
$$;
select tidings.keep_messages();

-- The last messages of a private topic, newest first, for those who have the right to receive there: so many at most, and no more bytes
-- than `bytes`, but always one.
create function tidings.replay_messages(wanted_topic text, since timestamptz, most integer, bytes bigint)
returns table (id uuid, event text, payload text, binary_payload bytea)
language sql stable security definer
set search_path = ''
as $$
  select f.id, f.event, f.payload, f.binary_payload
    from (
      select m.id, m.event, m.payload::text as payload, m.binary_payload, m.inserted_at,
             sum(coalesce(pg_catalog.octet_length(m.payload::text), pg_catalog.octet_length(m.binary_payload)))
               over (order by m.inserted_at desc, m.id desc) as total,
             pg_catalog.row_number() over (order by m.inserted_at desc, m.id desc) as place
        from (
          select m.* from realtime.messages m
           where m.topic = wanted_topic and m.private and m.extension = 'broadcast' and m.event is not null
             and (m.payload is not null or m.binary_payload is not null)
             and m.inserted_at >= since at time zone 'utc'
             and m.inserted_at < (pg_catalog.now() + interval '1 minute') at time zone 'utc'
             and not exists (select from tidings.expiring_messages e where e.id = m.id and e.expires_at < pg_catalog.now())
           order by m.inserted_at desc, m.id desc
           limit most) as m) as f
   where f.total <= bytes or f.place = 1
   order by f.place
$$;

-- Notes until when a message may be replayed.
create function tidings.expire_message(message_id uuid, keep interval) returns void
language sql security definer
set search_path = ''
as $$
  insert into tidings.expiring_messages (id, expires_at) values (message_id, pg_catalog.now() + keep) on conflict (id) do nothing
$$;

-- What a role may do on private channels, by the policies on realtime.messages, and how to ask them: SELECT policies decide who may
-- receive, INSERT policies who may send.
--
-- allowed    the role has the privilege that it needs besides
-- restricted whether row-level security applies to the role
-- statement  takes ($1 json[]: for each question {"extension": "broadcast" or "presence"}, $2 text: the principal's mark) and returns
--            one boolean[] with a verdict per question, or no row at all if the session is not that principal. The topic is the
--            setting realtime.topic.
-- definition as for tidings.access
create function tidings.channel_access(role_name text, writing boolean)
returns table (allowed boolean, restricted boolean, statement text, definition text)
language plpgsql stable
set search_path = ''
as $$
declare
  messages constant oid := pg_catalog.to_regclass('realtime.messages');
  commands constant "char"[] := case when writing then array['a', '*']::"char"[] else array['r', '*']::"char"[] end;
  role_oid oid;
  allowing text;
  limiting text;
  head     text;
  tail     text;
  verdict  text;
begin
  -- No token may name a superuser, whoever signed it.
  select r.oid into role_oid from pg_catalog.pg_roles r where r.rolname = role_name and not r.rolsuper;
  allowed := found and messages is not null
    and pg_catalog.has_schema_privilege(role_oid, 'realtime', 'USAGE')
    and pg_catalog.has_column_privilege(role_oid, messages, 'topic', case when writing then 'INSERT' else 'SELECT' end)
    and pg_catalog.has_column_privilege(role_oid, messages, 'extension', case when writing then 'INSERT' else 'SELECT' end);
  restricted := coalesce(tidings.is_restricted(messages, role_oid), true);
  if not allowed or not restricted then
    return next;
    return;
  end if;

  -- As PostgreSQL combines them (see tidings.access). A policy for ALL without WITH CHECK checks by its USING.
  with policy as (
    select p.polname, p.polpermissive,
           '(' || pg_catalog.pg_get_expr(case when writing then coalesce(p.polwithcheck, p.polqual) else p.polqual end, p.polrelid) || ')' as expression
      from pg_catalog.pg_policy p
     where p.polrelid = messages and p.polcmd = any (commands)
       and exists (select from pg_catalog.unnest(p.polroles) as member
                    where member = 0 or pg_catalog.pg_has_role(role_oid, member, 'USAGE'))
  )
  select pg_catalog.string_agg(expression, ' or ' order by polname desc) filter (where polpermissive),
         pg_catalog.string_agg(expression, ' and ' order by polname) filter (where not polpermissive)
    into allowing, limiting
    from policy where expression is not null;
  if allowing is null then
    return next;
    return;
  end if;

  head := 'select coalesce(' || coalesce(limiting || ' and ', '') || '(' || allowing
       || '), false) from pg_catalog.json_populate_record(null::realtime.messages, pg_catalog.json_build_object('
       || '''topic'', pg_catalog.current_setting(''realtime.topic''), ''private'', false, ''id'', pg_catalog.gen_random_uuid(), '
       || '''inserted_at'', pg_catalog.timezone(''utc'', pg_catalog.now()), ''updated_at'', pg_catalog.timezone(''utc'', pg_catalog.now()), '
       || '''extension'', pg_catalog.json_extract_path_text(';
  tail := ', ''extension''))) as messages';
  if exists (
    select from pg_catalog.pg_policy p
      join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_policy'::regclass and d.objid = p.oid
      join lateral (
        select pr.pronamespace as schema_ from pg_catalog.pg_proc pr
         where d.refclassid = 'pg_catalog.pg_proc'::regclass and pr.oid = d.refobjid
        union all
        select c.relnamespace from pg_catalog.pg_class c
         where d.refclassid = 'pg_catalog.pg_class'::regclass and c.oid = d.refobjid
        union all
        select t.typnamespace from pg_catalog.pg_type t
         where d.refclassid = 'pg_catalog.pg_type'::regclass and t.oid = d.refobjid
        union all
        select o.oprnamespace from pg_catalog.pg_operator o
         where d.refclassid = 'pg_catalog.pg_operator'::regclass and o.oid = d.refobjid
      ) used on not pg_catalog.has_schema_privilege(role_oid, used.schema_, 'USAGE')
     where p.polrelid = messages and p.polcmd = any (commands)
  ) then
    definition := 'create function pg_temp.tidings_verdict(json) returns boolean language sql stable begin atomic '
               || head || '$1' || tail || '; end';
    verdict := 'pg_temp.tidings_verdict(asked.question)';
  else
    verdict := '(' || head || 'asked.question' || tail || ')';
  end if;

  statement := pg_catalog.format(
    $statement$
    select array(
      select %s
        from pg_catalog.unnest($1::json[]) with ordinality as asked (question, place)
       order by asked.place)
     where pg_catalog.current_setting('tidings.principal', true) = $2
    $statement$, verdict);
  return next;
end
$$;

-- Follows realtime.messages like a watched table, but only what is inserted and can be sent. On a Supabase database the table is
-- somebody else's, who has to allow it; `tidings doctor` says so.
create function tidings.follow_messages() returns boolean
language plpgsql security definer
set search_path = ''
set lock_timeout = '2s'
set client_min_messages = 'warning'
as $$
declare
  watch_id integer;
begin
  if exists (select from pg_catalog.pg_trigger t
              where t.tgrelid = pg_catalog.to_regclass('realtime.messages') and t.tgname = 'tidings_message' and t.tgenabled in ('O', 'A')) then
    return true;
  end if;
  if not pg_catalog.has_table_privilege('realtime.messages', 'TRIGGER') then
    return false;
  end if;
  watch_id := tidings.attach('realtime.messages', 'explicit');
  -- Of messages only the beginning counts: their end is housekeeping.
  drop trigger if exists tidings_capture on realtime.messages;
  drop trigger if exists tidings_truncate on realtime.messages;
  drop trigger if exists tidings_message on realtime.messages;
  execute pg_catalog.format(
    'create trigger tidings_message after insert on realtime.messages for each row
       when (new.event is not null and new.private is not null and (new.payload is not null or new.binary_payload is not null))
       execute function tidings.capture(%L)', watch_id);
  return true;
end
$$;

do $$
begin
  if not tidings.follow_messages() then
    raise warning 'messages that are inserted into realtime.messages will not be broadcast: role % may not create a trigger on it', current_user
      using hint = format('grant trigger on table realtime.messages to %I; then: select tidings.follow_messages()', current_user);
  end if;
end
$$;

revoke execute on function tidings.keep_messages(), tidings.replay_messages(text, timestamptz, integer, bigint), tidings.expire_message(uuid, interval),
  tidings.channel_access(text, boolean), tidings.follow_messages() from public;
grant execute on function tidings.keep_messages(), tidings.replay_messages(text, timestamptz, integer, bigint), tidings.expire_message(uuid, interval),
  tidings.channel_access(text, boolean), tidings.follow_messages() to tidings_gateway;
