-- Filters for every type, by the operators that belong to it, and what the publication says of columns and rows.
--
-- A filter is a client's text, and is evaluated by the gateway's login: an operator, a cast or a function that somebody has put
-- into a schema of a search_path must never see it. So everything is named with its schema, and operators are looked up: the
-- type's default operator class, which only a superuser can make, or PostgreSQL's own, or those of the type's own extension.

-- A type with its schema. Unlike format_type, it never means a length: `character` is one character, `pg_catalog.bpchar` any number.
create function tidings.type_sql(type_ oid) returns text
language sql stable
set search_path = ''
as $$
  select pg_catalog.format('%I.%I', n.nspname, t.typname)
    from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace
   where t.oid = type_sql.type_
$$;

-- What a domain is made of in the end; other types are their own base.
create function tidings.base_type(type_ oid) returns oid
language sql stable
set search_path = ''
as $$
  with recursive chain as (
    select t.oid, t.typtype, t.typbasetype from pg_catalog.pg_type t where t.oid = base_type.type_
    union all
    select t.oid, t.typtype, t.typbasetype
      from chain c join pg_catalog.pg_type t on t.oid = c.typbasetype where c.typtype = 'd'
  )
  select c.oid from chain c where c.typtype <> 'd'
$$;

-- `collate …`, or nothing.
create function tidings.collate_sql(collation_ oid) returns text
language sql stable
set search_path = ''
as $$
  select coalesce(
    (select pg_catalog.format(' collate %I.%I', n.nspname, l.collname)
       from pg_catalog.pg_collation l join pg_catalog.pg_namespace n on n.oid = l.collnamespace
      where l.oid = collate_sql.collation_), '')
$$;

create function tidings.extension_of(class oid, object oid) returns oid
language sql stable
set search_path = ''
as $$
  select d.refobjid from pg_catalog.pg_depend d
   where d.classid = extension_of.class and d.objid = extension_of.object and d.deptype = 'e'
     and d.refclassid = 'pg_catalog.pg_extension'::regclass
$$;

-- The operator by which two values of a type are compared, and the type that both must have for it. No row: there is none.
create function tidings.comparison(base oid, symbol text) returns table (operator text, operand oid)
language sql stable
set search_path = ''
as $$
  with candidates as (
    select o.oid, c.opcintype as operand, c.opcintype = base as exact, m.amname = 'btree' as ordered
      from pg_catalog.pg_type t
      join pg_catalog.pg_opclass c on c.opcdefault and c.opcintype = any (array[
             t.oid,
             -- Types that have their operators from a kind.
             case t.typtype when 'e' then 'anyenum'::regtype when 'r' then 'anyrange'::regtype when 'm' then 'anymultirange'::regtype
                            when 'c' then 'record'::regtype end,
             case when t.typsubscript = 'pg_catalog.array_subscript_handler'::regproc then 'anyarray'::regtype end
           ])
           -- Types that are another one under another name, as varchar is text.
           or (c.opcdefault and t.typtype = 'b' and exists (
                 select from pg_catalog.pg_cast x
                  where x.castsource = t.oid and x.casttarget = c.opcintype and x.castmethod = 'b' and x.castcontext = 'i'))
      join pg_catalog.pg_am m on m.oid = c.opcmethod and m.amname in ('btree', 'hash')
      join pg_catalog.pg_amop a on a.amopfamily = c.opcfamily and a.amoplefttype = c.opcintype and a.amoprighttype = c.opcintype
                               and a.amoppurpose = 's'
                               and a.amopstrategy = case when m.amname = 'btree'
                                     then pg_catalog.array_position(array['<', '<=', '=', '>=', '>'], symbol)
                                     else pg_catalog.array_position(array['='], symbol) end
      -- Some are in a class under another name (hstore's #<#): the type has no such operator.
      join pg_catalog.pg_operator o on o.oid = a.amopopr and o.oprname = symbol
     where t.oid = comparison.base
    union all
    select o.oid, base, true, null
      from pg_catalog.pg_operator o
     where o.oprname = symbol and o.oprleft = base and o.oprright = base
       and (o.oprnamespace = 'pg_catalog'::regnamespace
            or tidings.extension_of('pg_catalog.pg_operator'::regclass, o.oid)
               = tidings.extension_of('pg_catalog.pg_type'::regclass, base))
  )
  select pg_catalog.format('operator(%I.%s)', n.nspname, o.oprname),
         case when (select t.typtype from pg_catalog.pg_type t where t.oid = c.operand) = 'p' then base else c.operand end
    from candidates c
    join pg_catalog.pg_operator o on o.oid = c.oid
    join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
   -- An extension's type that is text under another name (citext) has operators of its own. A class without this operator is no
   -- candidate.
   order by c.exact desc, c.ordered desc nulls last, c.operand = 'text'::regtype desc, c.oid
   limit 1
$$;

-- The same for patterns: with the types of the value and of the pattern.
create function tidings.pattern(base oid, symbol text) returns table (operator text, operand oid, pattern oid)
language sql stable
set search_path = ''
as $$
  with own as (
    select pg_catalog.format('operator(%I.%s)', n.nspname, o.oprname) as operator, 1 as place, base as operand, base as pattern
      from pg_catalog.pg_operator o join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
     where o.oprname = symbol and o.oprleft = base and o.oprright = base
       and tidings.extension_of('pg_catalog.pg_operator'::regclass, o.oid)
           = tidings.extension_of('pg_catalog.pg_type'::regclass, base)
    union all
    -- PostgreSQL's own take text, and also char(n), with its blanks, and name. All else is turned into text.
    select pg_catalog.format('operator(pg_catalog.%s)', symbol), 2,
           case when base in ('bpchar'::regtype, 'name'::regtype) then base else 'text'::regtype end, 'text'::regtype
  )
  select o.operator, o.operand, o.pattern from own o order by o.place limit 1
$$;

-- The SQL of one condition on the columns of a row. Values are cast to the column's type, here and once, so that neither the time
-- zone nor the date style of whoever evaluates it matters. It is TRUE for the rows that match; NULL is a no, also when it is negated.
-- Raises what PostgreSQL raises for a value that does not fit, for an operator that the type lacks, and for one that fails.
create or replace function tidings.condition_sql(relation regclass, condition json) returns text
language plpgsql stable
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO, MDY'
set intervalstyle = 'postgres'
set extra_float_digits = '1'
set bytea_output = 'hex'
as $$
declare
  wanted   constant text := condition ->> 'column';
  value    constant text := condition ->> 'value';
  kind     constant text := condition ->> 'operator';
  negate   constant boolean := (condition ->> 'negate')::boolean;
  symbol   text;
  type_    oid;
  base     oid;
  collate_ text;
  column_  text;
  found_   record;
  literal  text;
  items    text[];
  list     oid;
  answer   text;
begin
  select a.atttypid, tidings.base_type(a.atttypid), tidings.collate_sql(a.attcollation), pg_catalog.quote_ident(a.attname)
    into type_, base, collate_, column_
    from pg_catalog.pg_attribute a
   where a.attrelid = relation and a.attnum > 0 and not a.attisdropped and a.attname = wanted;
  if not found then
    raise exception 'invalid column for filter %', wanted;
  end if;

  if kind = 'is' then
    if value not in ('null', 'true', 'false', 'unknown') then
      raise exception 'invalid value for is filter: must be null, true, false, or unknown';
    elsif value <> 'null' and base <> 'boolean'::regtype then
      raise exception 'is % filter requires a boolean column, got %', value, pg_catalog.format_type(type_, null);
    end if;
    -- Not the same as NOT (… IS …) for a composite with some nulls.
    return pg_catalog.format('%s is %s%s', column_, case when negate then 'not ' else '' end, value);
  end if;

  if kind in ('like', 'ilike', 'match', 'imatch') then
    if (select t.typcategory from pg_catalog.pg_type t where t.oid = base) not in ('S', 'E') and base <> '"char"'::regtype then
      raise exception 'operator % requires a text-compatible column type, got %', kind, pg_catalog.format_type(type_, null);
    end if;
    symbol := case kind when 'like' then '~~' when 'ilike' then '~~*' when 'match' then '~' else '~*' end;
    select * into found_ from tidings.pattern(base, symbol);
    literal := pg_catalog.format('%L::%s', value, tidings.type_sql(found_.pattern));
    -- Tried on some text of the column's collation, since a pattern is not looked at before there is a value.
    begin
      execute pg_catalog.format('select (%L::%s%s) %s %s', case when kind in ('like', 'ilike') then value else '' end,
                                tidings.type_sql(found_.operand), collate_, found_.operator, literal);
    exception when invalid_regular_expression then
      raise exception 'invalid regular expression for % filter: %', kind, sqlerrm;
    end;
    answer := pg_catalog.format('%s::%s %s %s', column_, tidings.type_sql(found_.operand), found_.operator, literal);
    return case when negate then pg_catalog.format('not (%s)', answer) else pg_catalog.format('(%s)', answer) end;
  end if;

  symbol := case kind when 'lt' then '<' when 'lte' then '<=' when 'gt' then '>' when 'gte' then '>=' else '=' end;
  select * into found_ from tidings.comparison(base, symbol);
  if not found then
    raise exception 'operator does not exist: %', pg_catalog.format('%1$s %2$s %1$s', pg_catalog.format_type(type_, null), symbol)
      using errcode = 'undefined_function';
  end if;
  column_ := pg_catalog.format('%s::%s', column_, tidings.type_sql(found_.operand));

  if kind = 'in' then
    select t.typarray into list from pg_catalog.pg_type t where t.oid = base;
    if list <> 0 then
      execute pg_catalog.format('select pg_catalog.format(''%%s'', given), given::pg_catalog.text[] from (select %L::%s as given) as list',
                                value, tidings.type_sql((select t.typarray from pg_catalog.pg_type t where t.oid = type_)))
        into literal, items;
    else
      -- A list of arrays: there is no array of arrays, so each is a text of its own.
      items := value::text[];
    end if;
    if pg_catalog.cardinality(items) > 100 then
      raise exception 'too many values for `in` filter. Maximum 100';
    end if;
    if list <> 0 then
      literal := pg_catalog.format('%L::%s', literal, tidings.type_sql(list));
      if found_.operand <> base then
        literal := pg_catalog.format('%s::%s', literal, tidings.type_sql((select t.typarray from pg_catalog.pg_type t where t.oid = found_.operand)));
      end if;
      execute pg_catalog.format('select (%s)[1]%s %s any (%s)', literal, collate_, found_.operator, literal);
      answer := pg_catalog.format('%s %s any (%s)', column_, found_.operator, literal);
    else
      answer := 'false';
      for index_ in 1 .. pg_catalog.cardinality(items) loop
        execute pg_catalog.format('select pg_catalog.format(''%%s'', %L::%s)', items[index_], tidings.type_sql(type_)) into literal;
        answer := pg_catalog.format('%s or %s %s %L::%s', answer, column_, found_.operator,
                                    case when items[index_] is not null then literal end, tidings.type_sql(found_.operand));
      end loop;
    end if;
  else
    execute pg_catalog.format('select pg_catalog.format(''%%s'', %L::%s)', value, tidings.type_sql(type_)) into literal;
    literal := pg_catalog.format('%L::%s', literal, tidings.type_sql(base));
    if found_.operand <> base then
      literal := pg_catalog.format('%s::%s', literal, tidings.type_sql(found_.operand));
    end if;
    -- An array has an operator that its elements may lack, and only a value shows it.
    execute pg_catalog.format('select (%s)%s %s %s', literal, collate_, found_.operator, literal);
    answer := pg_catalog.format('%s %s %s', column_, found_.operator, literal);
    if kind = 'isdistinct' then
      return pg_catalog.format('(%s) is %strue', answer, case when negate then '' else 'not ' end);
    end if;
  end if;
  return case when negate <> (kind = 'neq') then pg_catalog.format('not (%s)', answer) else pg_catalog.format('(%s)', answer) end;
end
$$;

-- Which rows of a table the publication sends: an expression on its columns, if the publication brought the table and has one.
-- As JSON, since PostgreSQL 14 has no such column. The view looks at every published table, so it is asked last.
create function tidings.row_filter(relation oid) returns text
language sql stable
set search_path = ''
as $$
  select case when pg_catalog.to_jsonb(r) ->> 'prqual' is not null then
           (select pg_catalog.to_jsonb(t) ->> 'rowfilter'
              from pg_catalog.pg_class c
              join pg_catalog.pg_namespace n on n.oid = c.relnamespace
              join pg_catalog.pg_publication_tables t on t.pubname = p.pubname and t.schemaname = n.nspname and t.tablename = c.relname
             where c.oid = w.relation)
         end
    from tidings.watched w
    join pg_catalog.pg_publication p on p.pubname = 'supabase_realtime'
    join pg_catalog.pg_publication_rel r on r.prpubid = p.oid and r.prrelid = w.relation
   where w.relation = row_filter.relation and w.origin = 'publication'
$$;

-- The numbers of the columns that the publication sends; null for all of them.
create function tidings.column_list(relation oid) returns jsonb
language sql stable
set search_path = ''
as $$
  select nullif(pg_catalog.to_jsonb(r) -> 'prattrs', 'null')
    from tidings.watched w
    join pg_catalog.pg_publication p on p.pubname = 'supabase_realtime'
    join pg_catalog.pg_publication_rel r on r.prpubid = p.oid and r.prrelid = w.relation
   where w.relation = column_list.relation and w.origin = 'publication'
$$;

-- Where the values of some columns stand in a FROM clause: `given`, made of a row of the log. The columns have their base types, so
-- that no domain is checked again, and one that may not be null need not be there.
create function tidings.given_sql(relation oid, columns text[]) returns text
language sql stable
set search_path = ''
as $$
  select pg_catalog.format('(select %s from pg_catalog.json_to_record(asked.record) as r (%s)) as given',
           pg_catalog.string_agg(
             case when h.maker is null then pg_catalog.format('r.%I', a.attname)
             -- In JSON it is an object, which is not how it is read.
             else pg_catalog.format(
               'case when r.%1$I is not null then coalesce((select %2$s(pg_catalog.array_agg(e.key), pg_catalog.array_agg(e.value)) from pg_catalog.json_each_text(r.%1$I) e), '''') end as %1$I',
               a.attname, h.maker) end, ', ' order by a.attnum),
           pg_catalog.string_agg(
             pg_catalog.format('%I %s%s', a.attname,
               case when h.maker is null then tidings.type_sql(tidings.base_type(a.atttypid)) else 'pg_catalog.json' end,
               case when h.maker is null then tidings.collate_sql(a.attcollation) else '' end), ', ' order by a.attnum))
    from pg_catalog.pg_attribute a
    left join lateral (
           select pg_catalog.format('%I.hstore', n.nspname) as maker
             from pg_catalog.pg_type t
             join pg_catalog.pg_namespace n on n.oid = t.typnamespace
             join pg_catalog.pg_extension x on x.oid = tidings.extension_of('pg_catalog.pg_type'::regclass, t.oid)
            where t.oid = tidings.base_type(a.atttypid) and t.typname = 'hstore' and x.extname = 'hstore') h on true
   where a.attrelid = given_sql.relation and a.attnum > 0 and not a.attisdropped and a.attname = any (columns)
$$;

-- Checks the conditions of one binding as a whole, for a role. Raises the protocol's texts. Returns
--
-- statement  takes ($1 json[]: rows) and returns one boolean[] that says which rows match. Its last line names the columns that it
--            reads. It leaves out conditions that say "here": the gateway evaluates those itself. Null if none is left, and the
--            publication sends every row
-- known      for each condition its values as the change log writes them, or null where it compares with none
drop function tidings.check_filter(regclass, text, json);
create function tidings.check_filter(relation regclass, role_name text, conditions json)
returns table (statement text, known json)
language plpgsql stable
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO, MDY'
set intervalstyle = 'postgres'
set extra_float_digits = '1'
set bytea_output = 'hex'
as $$
declare
  condition json;
  published constant text := tidings.row_filter(check_filter.relation);
  sent      constant jsonb := tidings.column_list(check_filter.relation);
  parts     text[] := '{}';
  reads     text[] := '{}';
  values_   json[] := '{}';
  part      text;
  wanted    text;
  type_     oid;
  list      oid;
  canonical json;
begin
  for condition in select value from pg_catalog.json_array_elements(conditions) loop
    wanted := condition ->> 'column';
    select a.atttypid into type_ from pg_catalog.pg_attribute a
     where a.attrelid = check_filter.relation and a.attname = wanted and a.attnum > 0 and not a.attisdropped
       and pg_catalog.has_column_privilege(role_name, check_filter.relation, a.attnum, 'SELECT')
       -- What is not sent cannot be guessed by filters, either.
       and (sent is null or sent @> pg_catalog.to_jsonb(a.attnum));
    if not found then
      raise exception 'invalid column for filter %', wanted;
    end if;
    part := tidings.condition_sql(check_filter.relation, condition);
    if not coalesce((condition ->> 'here')::boolean, false) then
      parts := parts || part;
      reads := reads || wanted;
    end if;
    canonical := null;
    if condition ->> 'operator' = 'in' then
      select t.typarray into list from pg_catalog.pg_type t where t.oid = tidings.base_type(type_);
      if list <> 0 then
        execute pg_catalog.format(
          'select coalesce(pg_catalog.json_agg(pg_catalog.to_json(item)), ''[]'') from pg_catalog.unnest(%L::%s) item',
          condition ->> 'value', tidings.type_sql(list)) into canonical;
      end if;
    elsif condition ->> 'operator' in ('eq', 'neq', 'lt', 'lte', 'gt', 'gte', 'isdistinct') then
      execute pg_catalog.format('select pg_catalog.json_build_array(pg_catalog.to_json(%L::%s))',
                                condition ->> 'value', tidings.type_sql(tidings.base_type(type_)))
        into canonical;
    end if;
    values_ := values_ || coalesce(canonical, 'null');
  end loop;
  known := pg_catalog.array_to_json(values_);

  if published is not null then
    parts := parts || published;
    reads := reads || array(
      select a.attname::text from pg_catalog.pg_publication p
        join pg_catalog.pg_publication_rel r on r.prpubid = p.oid and r.prrelid = check_filter.relation
        join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_publication_rel'::regclass and d.objid = r.oid
                                   and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = r.prrelid
        join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
       where p.pubname = 'supabase_realtime' and d.refobjsubid > 0);
  end if;
  if parts <> '{}' then
    statement := pg_catalog.format(
      E'select array(select coalesce((select (%s) from %s), false) from pg_catalog.unnest($1::json[]) with ordinality as asked (record, place)'
        ' order by asked.place)\n-- %s',
      pg_catalog.array_to_string(parts, ') and ('),
      coalesce(tidings.given_sql(check_filter.relation, reads), '(select) as given'),
      (select coalesce(pg_catalog.json_agg(distinct name), '[]') from pg_catalog.unnest(reads) name));
    execute statement using array['{}'::json];
  end if;
  return next;
end
$$;

-- As before, and only of rows that the publication sends.
create or replace function tidings.history_statement(relation regclass, columns text[], conditions json, wanted_order text, rows integer) returns text
language plpgsql stable
set search_path = ''
as $$
declare
  ordering text;
  type_    regtype;
  ties     text;
  parts    text;
  listed   text;
  moment   text;
  name_    name;
  nullable boolean;
begin
  select c.relname into name_ from pg_catalog.pg_class c where c.oid = history_statement.relation;
  select a.attname, a.atttypid::regtype, not a.attnotnull into ordering, type_, nullable
    from pg_catalog.pg_attribute a
   where a.attrelid = history_statement.relation and a.attnum > 0 and not a.attisdropped and a.attname = any (columns)
     and case when wanted_order is not null then a.attname = wanted_order
              else (a.attname in ('created_at', 'inserted_at') and a.atttypid in ('timestamptz'::regtype, 'timestamp'::regtype))
                or (a.atttypid in ('bigint'::regtype, 'integer'::regtype, 'smallint'::regtype)
                    and exists (select from pg_catalog.pg_index i
                                 where i.indrelid = a.attrelid and i.indisprimary and i.indnkeyatts = 1 and i.indkey[0] = a.attnum))
         end
   -- The time first: a primary key may count something else.
   order by a.atttypid in ('timestamptz'::regtype, 'timestamp'::regtype) desc, a.attname
   limit 1;
  if not found then
    if wanted_order is null then
      raise exception 'the order of the rows of % is not known: name a column with `order`', history_statement.relation;
    end if;
    raise exception 'invalid column for order %', wanted_order;
  end if;

  select pg_catalog.string_agg(', ' || pg_catalog.quote_ident(a.attname) || ' desc', '' order by pg_catalog.array_position(i.indkey::smallint[], a.attnum))
    into ties
    from pg_catalog.pg_index i
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey::smallint[])
   where i.indrelid = history_statement.relation and i.indisprimary and a.attname = any (columns) and a.attname <> ordering;
  select pg_catalog.string_agg(part, ' and ') into parts
    from (select tidings.condition_sql(history_statement.relation, c.value) as part from pg_catalog.json_array_elements(conditions) c
          union all
          select '(' || published || ')' from tidings.row_filter(history_statement.relation) as published where published is not null) p;
  select pg_catalog.string_agg(pg_catalog.quote_ident(name), ', ') into listed from pg_catalog.unnest(columns) name;
  moment := case when type_ = 'timestamptz'::regtype then pg_catalog.quote_ident(ordering) || ' at time zone ''UTC'''
                 when type_ = 'timestamp'::regtype then pg_catalog.quote_ident(ordering)
                 else 'pg_catalog.clock_timestamp() at time zone ''UTC''' end;

  -- An index gives the rows in their order only if the question is put like this. Rows without a value have no place in it.
  if nullable then
    parts := coalesce(parts || ' and ', '') || pg_catalog.format('%I is not null', ordering);
  end if;
  ordering := pg_catalog.quote_ident(ordering) || ' desc' || coalesce(ties, '');
  return pg_catalog.format(
    $statement$
    select present.snapshot, numbered.moment, numbered.record
      from (select pg_catalog.pg_current_snapshot()::text as snapshot) as present
      left join (
        select pg_catalog.to_char(found.moment, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as moment, found.record,
               pg_catalog.row_number() over () as place
          from (
            select %1$s as moment, (select pg_catalog.row_to_json(picked) from (select %2$s) as picked) as record
              from %4$s as %5$I
             where %6$s
             order by %3$s
             limit %7$s) as found) as numbered on true
     order by numbered.place
    $statement$,
    moment, listed, ordering, history_statement.relation, name_, coalesce(parts, 'true'), rows);
end
$$;

-- As before; a domain is described by its base through all domains in between, and a type that is not PostgreSQL's own is named with
-- its schema, since it may bear the name of one that is. And what the publication says of columns and rows.
drop function tidings.catalog();
create function tidings.catalog()
returns table (watch_id integer, relation oid, schema_name text, table_name text, inserts boolean, updates boolean,
               deletes boolean, full_identity boolean, attached text, row_filter text, columns json)
language sql stable
set search_path = ''
as $$
  select w.id, c.oid, n.nspname::text, c.relname::text,
         -- The publication's own flags count for the tables that it brought.
         w.origin <> 'publication' or p.pubinsert, w.origin <> 'publication' or p.pubupdate,
         w.origin <> 'publication' or p.pubdelete, c.relreplident = 'f', w.attached::text,
         tidings.row_filter(c.oid),
         (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
                   'name', a.attname,
                   'type', t.typname,
                   -- A domain is rendered and compared as its base type.
                   'base', case when bn.nspname = 'pg_catalog' then b.typname::text else pg_catalog.format('%I.%I', bn.nspname, b.typname) end,
                   'kind', b.typtype,
                   'category', b.typcategory,
                   'domain', t.typtype = 'd',
                   'key', coalesce(a.attnum = any (i.indkey::smallint[]), false),
                   'sent', coalesce(sent @> pg_catalog.to_jsonb(a.attnum), true),
                   -- Equal values of such a column may differ in their bytes.
                   'deterministic', coalesce((select l.collisdeterministic from pg_catalog.pg_collation l where l.oid = a.attcollation), true)
                 ) order by a.attnum), '[]')
            from pg_catalog.pg_attribute a
            join pg_catalog.pg_type t on t.oid = a.atttypid
            join pg_catalog.pg_type b on b.oid = case when t.typtype = 'd' then tidings.base_type(t.oid) else t.oid end
            join pg_catalog.pg_namespace bn on bn.oid = b.typnamespace
            left join pg_catalog.pg_index i on i.indrelid = c.oid and i.indisprimary
           where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)
    from tidings.watched w
    join pg_catalog.pg_class c on c.oid = w.relation
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    left join pg_catalog.pg_publication p on p.pubname = 'supabase_realtime'
   cross join lateral (select tidings.column_list(c.oid) as sent) s
$$;

revoke execute on function tidings.type_sql(oid), tidings.base_type(oid), tidings.collate_sql(oid), tidings.extension_of(oid, oid),
  tidings.comparison(oid, text), tidings.pattern(oid, text), tidings.row_filter(oid), tidings.column_list(oid),
  tidings.given_sql(oid, text[]), tidings.check_filter(regclass, text, json), tidings.catalog() from public;
grant execute on function tidings.type_sql(oid), tidings.base_type(oid), tidings.collate_sql(oid), tidings.extension_of(oid, oid),
  tidings.comparison(oid, text), tidings.pattern(oid, text), tidings.row_filter(oid), tidings.column_list(oid),
  tidings.given_sql(oid, text[]), tidings.check_filter(regclass, text, json), tidings.catalog() to tidings_gateway;
