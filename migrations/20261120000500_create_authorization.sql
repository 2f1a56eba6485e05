-- What the gateway asks the catalog: which tables there are, what a role may read of them, and the statements that
-- evaluate policies and filters. The statements are made here, by PostgreSQL's own deparser, and prepared by the gateway.

-- Everything that the gateway knows of the watched tables, one row each.
create function tidings.catalog()
returns table (watch_id integer, relation oid, schema_name text, table_name text, inserts boolean, updates boolean,
               deletes boolean, full_identity boolean, columns json)
language sql stable
set search_path = ''
as $$
  select w.id, c.oid, n.nspname::text, c.relname::text,
         -- The publication's own flags count for the tables that it brought.
         w.origin <> 'publication' or p.pubinsert, w.origin <> 'publication' or p.pubupdate,
         w.origin <> 'publication' or p.pubdelete, c.relreplident = 'f',
         (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
                   'name', a.attname,
                   'type', t.typname,
                   -- A domain is rendered and compared as its base type.
                   'base', coalesce(b.typname, t.typname),
                   'kind', t.typtype,
                   'category', t.typcategory,
                   'key', coalesce(a.attnum = any (i.indkey::smallint[]), false),
                   -- Equal values of such a column may differ in their bytes.
                   'deterministic', coalesce((select l.collisdeterministic from pg_catalog.pg_collation l where l.oid = a.attcollation), true)
                 ) order by a.attnum), '[]')
            from pg_catalog.pg_attribute a
            join pg_catalog.pg_type t on t.oid = a.atttypid
            left join pg_catalog.pg_type b on b.oid = t.typbasetype
            left join pg_catalog.pg_index i on i.indrelid = c.oid and i.indisprimary
           where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)
    from tidings.watched w
    join pg_catalog.pg_class c on c.oid = w.relation
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    left join pg_catalog.pg_publication p on p.pubname = 'supabase_realtime'
$$;

-- Whether row-level security applies to a role that reads a table: not to BYPASSRLS roles, nor to owners unless forced.
create function tidings.is_restricted(relation oid, role_oid oid) returns boolean
language sql stable
set search_path = ''
as $$
  select c.relrowsecurity and not (r.rolbypassrls or r.rolsuper)
         and (c.relforcerowsecurity or not pg_catalog.pg_has_role(role_oid, c.relowner, 'USAGE'))
    from pg_catalog.pg_class c, pg_catalog.pg_roles r
   where c.oid = relation and r.oid = role_oid
$$;

-- What a role may read of a table, and how to ask its policies about a row.
--
-- columns    the columns that the role may SELECT; none means that it may not read the table at all
-- restricted whether row-level security applies to the role
-- reads      the columns of the row that its policies read; null when they read the whole row
-- statement  takes ($1 json[]: rows, $2 text: the principal's mark) and returns one boolean[] with a verdict per row,
--            or no row at all if the session is not that principal
-- definition what the statement needs first, if the policies use objects in schemas that the role may not look into: a
--            function whose body is parsed by the gateway's login, as a policy is parsed by its creator. It is made and
--            undone in the transaction that asks: one that stayed would keep people from dropping what it refers to.
-- parents    for a column that refers to another table with row-level security: a statement of the same form that says
--            whether the principal sees the row referred to. Where the policies say nothing of the column that a
--            subscription names, this is how a subscription to somebody else's room is refused.
create function tidings.access(relation regclass, role_name text)
returns table (role_exists boolean, columns text[], restricted boolean, reads text[], statement text, definition text, parents json)
language plpgsql stable
set search_path = ''
as $$
declare
  role_oid  oid;
  name_     name;
  allowing  text;
  limiting  text;
  whole_row boolean;
  head      text;
  tail      text;
  verdict   text;
begin
  -- No token may name a superuser, whoever signed it.
  select r.oid into role_oid from pg_catalog.pg_roles r where r.rolname = role_name and not r.rolsuper;
  role_exists := found;
  if not role_exists then
    columns := '{}';
    restricted := true;
    return next;
    return;
  end if;
  select c.relname into name_ from pg_catalog.pg_class c where c.oid = access.relation;

  select coalesce(pg_catalog.array_agg(a.attname::text order by a.attnum), '{}') into columns
    from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid
   where a.attrelid = access.relation and a.attnum > 0 and not a.attisdropped
     and pg_catalog.has_schema_privilege(role_oid, c.relnamespace, 'USAGE')
     and pg_catalog.has_column_privilege(role_oid, access.relation, a.attnum, 'SELECT');

  -- A table that is gone may be read by nobody.
  restricted := coalesce(tidings.is_restricted(access.relation, role_oid), true);
  if not restricted then
    reads := '{}';
    return next;
    return;
  end if;

  -- As PostgreSQL combines them, in its order, which shows where a policy raises an error: every restrictive policy must
  -- allow, by name, and any permissive one, by name from the last. Those for PUBLIC (0) and
  -- for roles whose privileges the role has. No permissive policy means no.
  select pg_catalog.string_agg('(' || pg_catalog.pg_get_expr(p.polqual, p.polrelid) || ')', ' or ' order by p.polname desc)
           filter (where p.polpermissive),
         pg_catalog.string_agg('(' || pg_catalog.pg_get_expr(p.polqual, p.polrelid) || ')', ' and ' order by p.polname)
           filter (where not p.polpermissive),
         -- A reference to the whole row is in no catalog: in the expression's tree it is attribute number 0.
         coalesce(pg_catalog.bool_or(p.polqual::text ~ ':varattno 0 '), false)
    into allowing, limiting, whole_row
    from pg_catalog.pg_policy p
   where p.polrelid = access.relation and p.polcmd in ('r', '*') and p.polqual is not null
     and exists (select from pg_catalog.unnest(p.polroles) as member
                  where member = 0 or pg_catalog.pg_has_role(role_oid, member, 'USAGE'));

  if allowing is null then
    columns := '{}';
    reads := '{}';
    return next;
    return;
  end if;

  if whole_row then
    reads := null;
  else
    select coalesce(pg_catalog.array_agg(distinct a.attname::text), '{}') into reads
      from pg_catalog.pg_policy p
      join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_policy'::regclass and d.objid = p.oid
                                 and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = p.polrelid
      join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
     where p.polrelid = access.relation and p.polcmd in ('r', '*') and d.refobjsubid > 0
       and exists (select from pg_catalog.unnest(p.polroles) as member
                    where member = 0 or pg_catalog.pg_has_role(role_oid, member, 'USAGE'));
  end if;

  head := 'select coalesce(' || coalesce(limiting || ' and ', '') || '(' || allowing
       || '), false) from pg_catalog.json_populate_record(null::' || access.relation || ', ';
  tail := ') as ' || pg_catalog.quote_ident(name_);
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
     where p.polrelid = access.relation and p.polcmd in ('r', '*')
       and exists (select from pg_catalog.unnest(p.polroles) as member
                    where member = 0 or pg_catalog.pg_has_role(role_oid, member, 'USAGE'))
  ) then
    definition := 'create function pg_temp.tidings_verdict(json) returns boolean language sql stable begin atomic '
               || head || '$1' || tail || '; end';
    verdict := 'pg_temp.tidings_verdict(asked.record)';
  else
    verdict := '(' || head || 'asked.record' || tail || ')';
  end if;

  statement := pg_catalog.format(
    $statement$
    select array(
      select %s
        from pg_catalog.unnest($1::json[]) with ordinality as asked (record, place)
       order by asked.place)
     where pg_catalog.current_setting('tidings.principal', true) = $2
    $statement$, verdict);

  select pg_catalog.json_object_agg(a.attname, pg_catalog.format(
           $statement$
           select array(
             select exists (select from %s as parent where parent.%I = given.%I)
               from pg_catalog.unnest($1::json[]) with ordinality as asked (record, place),
                    pg_catalog.json_populate_record(null::%s, asked.record) as given
              order by asked.place)
            where pg_catalog.current_setting('tidings.principal', true) = $2
           $statement$, f.confrelid::regclass, key.attname, a.attname, access.relation))
    into parents
    from pg_catalog.pg_constraint f
    join pg_catalog.pg_attribute a on a.attrelid = f.conrelid and a.attnum = f.conkey[1]
    join pg_catalog.pg_attribute key on key.attrelid = f.confrelid and key.attnum = f.confkey[1]
    join pg_catalog.pg_class c on c.oid = f.confrelid
   where f.conrelid = access.relation and f.contype = 'f' and pg_catalog.cardinality(f.conkey) = 1
     and tidings.is_restricted(f.confrelid, role_oid)
     -- A role that may not read that table, or for which it has no policy, learns nothing from it.
     and pg_catalog.has_schema_privilege(role_oid, c.relnamespace, 'USAGE')
     and pg_catalog.has_column_privilege(role_oid, f.confrelid, key.attnum, 'SELECT')
     and exists (select from pg_catalog.pg_policy p, pg_catalog.unnest(p.polroles) as member
                  where p.polrelid = f.confrelid and p.polcmd in ('r', '*') and p.polpermissive
                    and (member = 0 or pg_catalog.pg_has_role(role_oid, member, 'USAGE')));
  return next;
end
$$;

-- The SQL of one condition on a row that is called by its table's name. Values are cast to the column's type; a
-- condition that is not TRUE does not match, also when it is negated. Raises what PostgreSQL raises for a value that does not fit.
create function tidings.condition_sql(relation regclass, condition json) returns text
language plpgsql stable
set search_path = ''
as $$
declare
  wanted   constant text := condition ->> 'column';
  value    constant text := condition ->> 'value';
  operator constant text := condition ->> 'operator';
  type_    regtype;
  basic    regtype;
  quoted   text;
  answer   text;
begin
  select a.atttypid::regtype, coalesce(nullif(t.typbasetype, 0), t.oid)::regtype, pg_catalog.quote_ident(a.attname)
    into type_, basic, quoted
    from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
   where a.attrelid = relation and a.attnum > 0 and not a.attisdropped and a.attname = wanted;
  if not found then
    raise exception 'invalid column for filter %', wanted;
  end if;

  if operator = 'is' then
    if value not in ('null', 'true', 'false', 'unknown') then
      raise exception 'invalid value for is filter: must be null, true, false, or unknown';
    elsif value <> 'null' and basic <> 'boolean'::regtype then
      raise exception 'is % filter requires a boolean column, got %', value, pg_catalog.format_type(type_, null);
    end if;
    answer := pg_catalog.format('%s is %s', quoted, value);
  elsif operator in ('like', 'ilike', 'match', 'imatch') then
    if (select t.typcategory from pg_catalog.pg_type t where t.oid = basic) not in ('S', 'E') and basic::text not like '%citext' then
      raise exception 'operator % requires a text-compatible column type, got %', operator, pg_catalog.format_type(type_, null);
    end if;
    if operator in ('match', 'imatch') then
      begin
        perform '' ~ value;
      exception when invalid_regular_expression then
        raise exception 'invalid regular expression for % filter: %', operator, sqlerrm;
      end;
    end if;
    answer := pg_catalog.format('%s::text %s %L', quoted,
      case operator when 'like' then 'like' when 'ilike' then 'ilike' when 'match' then '~' else '~*' end, value);
  elsif operator = 'in' then
    if pg_catalog.cardinality(value::text[]) > 100 then
      raise exception 'too many values for `in` filter. Maximum 100';
    end if;
    answer := pg_catalog.format('%s = any (%L::%s[])', quoted, value, type_);
  else
    answer := pg_catalog.format('%s %s %L::%s', quoted,
      case operator when 'eq' then '=' when 'neq' then '<>' when 'lt' then '<' when 'lte' then '<=' when 'gt' then '>'
                    when 'gte' then '>=' when 'isdistinct' then 'is distinct from' end, value, type_);
  end if;
  return case when (condition ->> 'negate')::boolean then pg_catalog.format('(not (%s)) is true', answer)
              else pg_catalog.format('(%s) is true', answer) end;
end
$$;

-- Checks the conditions of one binding as a whole, for a role. Raises the protocol's texts. Returns
--
-- statement  takes ($1 json[]: rows) and returns one boolean[] that says which rows match
-- equals     for each `eq` condition the value as the change log writes it, so that equal texts are equal values
create function tidings.check_filter(relation regclass, role_name text, conditions json)
returns table (statement text, equals json)
language plpgsql stable
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO, MDY'
set intervalstyle = 'postgres'
as $$
declare
  condition json;
  parts     text[] := '{}';
  known     json[] := '{}';
  canonical json;
begin
  for condition in select value from pg_catalog.json_array_elements(conditions) loop
    if not exists (select from pg_catalog.pg_attribute a
                    where a.attrelid = check_filter.relation and a.attname = condition ->> 'column' and a.attnum > 0
                      and not a.attisdropped
                      and pg_catalog.has_column_privilege(role_name, check_filter.relation, a.attnum, 'SELECT')) then
      raise exception 'invalid column for filter %', condition ->> 'column';
    end if;
    parts := parts || tidings.condition_sql(check_filter.relation, condition);
    if condition ->> 'operator' = 'eq' and not (condition ->> 'negate')::boolean then
      execute (select pg_catalog.format('select pg_catalog.to_json(%L::%s)', condition ->> 'value', a.atttypid::regtype)
                 from pg_catalog.pg_attribute a
                where a.attrelid = check_filter.relation and a.attname = condition ->> 'column')
        into canonical;
      known := known || pg_catalog.json_build_object('column', condition ->> 'column', 'value', canonical);
    end if;
  end loop;

  statement := pg_catalog.format(
    $statement$
    select array(
      select (select %s from pg_catalog.json_populate_record(null::%s, asked.record) as %I)
        from pg_catalog.unnest($1::json[]) with ordinality as asked (record, place)
       order by asked.place)
    $statement$,
    coalesce(pg_catalog.array_to_string(parts, ' and '), 'true'), check_filter.relation,
    (select c.relname from pg_catalog.pg_class c where c.oid = check_filter.relation));
  -- Also finds operators that the type lacks, before the first change would.
  execute statement using array['{}'::json];
  equals := pg_catalog.array_to_json(known);
  return next;
end
$$;

-- The statement that inserts a row as whoever runs it, so that the table's policies decide. It takes ($1 json) and
-- returns the stored row, or nothing when the caller asked for no answer (then no right to SELECT is needed).
create function tidings.insert_statement(relation regclass, columns text[], returning_row boolean) returns text
language plpgsql stable
set search_path = ''
as $$
declare
  unknown text;
  listed  text;
begin
  select name into unknown from pg_catalog.unnest(columns) name
   where not exists (select from pg_catalog.pg_attribute a
                      where a.attrelid = insert_statement.relation and a.attname = name and a.attnum > 0 and not a.attisdropped)
   limit 1;
  if found then
    raise exception 'column "%" of relation "%" does not exist', unknown, relation using errcode = 'undefined_column';
  end if;
  select pg_catalog.string_agg(pg_catalog.quote_ident(name), ', ') into listed from pg_catalog.unnest(columns) name;
  return case when listed is null
    then pg_catalog.format('insert into %s as inserted default values', relation)
    else pg_catalog.format('insert into %s as inserted (%s) select %s from pg_catalog.json_populate_record(null::%s, $1) as given',
                           relation, listed, listed, relation)
  end || case when returning_row then ' returning pg_catalog.row_to_json(inserted)' else '' end;
end
$$;

revoke execute on function tidings.catalog(), tidings.is_restricted(oid, oid), tidings.access(regclass, text), tidings.condition_sql(regclass, json),
  tidings.check_filter(regclass, text, json), tidings.insert_statement(regclass, text[], boolean) from public;
grant execute on function tidings.catalog(), tidings.is_restricted(oid, oid), tidings.access(regclass, text), tidings.condition_sql(regclass, json),
  tidings.check_filter(regclass, text, json), tidings.insert_statement(regclass, text[], boolean) to tidings_gateway;
