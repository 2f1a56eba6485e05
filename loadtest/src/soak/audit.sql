-- What the soak holds against what was delivered. Tidings knows nothing of it, and it does not use anything of Tidings:
-- triggers of its own write it, in the transaction of the change itself.

create schema soak;

-- Each version of each row carries a number of its own, and how long its text is.
create sequence soak.numbers;
create function soak.label() returns trigger language plpgsql as $$
begin
  new.metadata := jsonb_build_object('n', nextval('soak.numbers'), 's', length(new.content));
  return new;
end
$$;

create table soak.audit (
  -- Drawn while the lock of the row is held: for the changes of one row, or of one transaction, this is their order.
  id         bigint generated always as identity primary key,
  kind       "char" not null,
  number     bigint not null,
  message_id uuid not null,
  session_id uuid not null,
  xid        xid8 not null default pg_current_xact_id(),
  -- What was committed when this change was made. Whatever that was comes before it, for everybody.
  snapshot   pg_snapshot not null,
  created_at timestamptz not null,
  at         timestamptz not null default clock_timestamp()
);

-- A volatile function looks at the database as it is now, also in the middle of a long statement.
create function soak.audit() returns trigger language plpgsql as $$
declare
  changed public.chat_messages;
begin
  changed := case tg_op when 'DELETE' then old else new end;
  insert into soak.audit (kind, number, message_id, session_id, snapshot, created_at)
  values (left(tg_op, 1)::"char", (changed.metadata ->> 'n')::bigint, changed.id, changed.session_id,
          pg_current_snapshot(), changed.created_at);
  return null;
end
$$;

create trigger soak_label before insert or update on public.chat_messages
  for each row execute function soak.label();
-- Triggers fire in the order of their names: this one before the one that writes the change log, so that whatever this
-- change saw had drawn its place in the log before it.
create trigger soak_audit after insert or update or delete on public.chat_messages
  for each row execute function soak.audit();
