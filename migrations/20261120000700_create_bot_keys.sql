-- Keys of bots: for senders that have no JWT. The key itself is shown once, when it is made; what is kept is the SHA-256
-- of its secret part, which is 256 random bits.

create table tidings.bot_keys (
  id                  bigint generated always as identity primary key,
  name                text not null check (name ~ '^[[:alnum:]][[:alnum:]._:-]{0,62}$'),
  role                text not null,
  claims              jsonb not null default '{}' check (jsonb_typeof(claims) = 'object'),
  key_hash            bytea not null check (octet_length(key_hash) = 32),
  messages_per_second integer check (messages_per_second > 0),
  created_at          timestamptz not null default now(),
  revoked_at          timestamptz
);
comment on column tidings.bot_keys.messages_per_second is 'null: no limit but those that hold for everybody';

-- A name is free again when its key is revoked.
create unique index bot_keys_name_idx on tidings.bot_keys (name) where revoked_at is null;

grant select on tidings.bot_keys to tidings_gateway;

-- Returns the new key's id. Roles that this login may not become are refused: whoever makes a key gives away no more
-- than they have. So are those that could read the change log or do without privileges altogether.
create function tidings.create_bot_key(name text, role text, claims jsonb, key_hash bytea, messages_per_second integer)
returns bigint
language plpgsql
set search_path = ''
as $$
declare
  found_role pg_catalog.pg_roles;
  new_id     bigint;
begin
  select * into found_role from pg_catalog.pg_roles r where r.rolname = create_bot_key.role;
  if not found then
    raise exception 'there is no role "%"', role
      using hint = 'create it with nologin, and grant it to the login of tidings serve';
  elsif found_role.rolsuper or pg_catalog.pg_has_role(found_role.oid, 'tidings_gateway', 'MEMBER')
        or pg_catalog.pg_has_role(found_role.oid, 'tidings_capture', 'MEMBER') then
    raise exception 'role "%" is a superuser or the gateway''s own, and may do too much for a bot', role
      using hint = 'choose a role such as authenticated, or one made for this bot';
  elsif not pg_catalog.pg_has_role(current_user, found_role.oid,
                                   case when pg_catalog.current_setting('server_version_num')::integer >= 160000
                                        then 'SET' else 'MEMBER' end) then
    raise exception 'login "%" may not become role "%"', current_user, role
      using hint = pg_catalog.format('grant %I to %I', role, current_user);
  elsif exists (select from tidings.bot_keys k where k.name = create_bot_key.name and k.revoked_at is null) then
    raise exception 'there is a key of that name already'
      using hint = 'choose another name, or revoke that key first';
  elsif claims ? 'role' then
    raise exception 'the claim role is the key''s role and cannot be another';
  end if;
  insert into tidings.bot_keys as k (name, role, claims, key_hash, messages_per_second)
  values (create_bot_key.name, create_bot_key.role, create_bot_key.claims, create_bot_key.key_hash,
          create_bot_key.messages_per_second)
  returning k.id into new_id;
  return new_id;
end
$$;

-- Gateways refuse the key from the next time they read the table, within two seconds. Returns false if there is no such key.
create function tidings.revoke_bot_key(name text) returns boolean
language sql
set search_path = ''
as $$
  with revoked as (
    update tidings.bot_keys k set revoked_at = pg_catalog.now()
     where k.name = revoke_bot_key.name and k.revoked_at is null
    returning 1)
  select exists (select from revoked)
$$;

revoke execute on function tidings.create_bot_key(text, text, jsonb, bytea, integer), tidings.revoke_bot_key(text) from public;
