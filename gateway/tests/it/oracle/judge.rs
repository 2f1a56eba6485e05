//! PostgreSQL itself, asked what each person sees of a row by a plain SELECT.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use tokio_postgres::{Client, types::Json};

use super::{people::Person, world::FILTERS};
use crate::support::TestDatabase;

const JUDGE: &str = r"
create schema oracle;
grant usage on schema oracle to public;
-- What the executor alone says of a row. The planner estimates selectivities by evaluating stable functions, and a SELECT
-- may fail there for an error in a condition that no row would ever have reached.
create function oracle.executed(relation regclass, person json, image json) returns text
language plpgsql as $f$
declare
  allowing text; limiting text; answer boolean;
begin
  select string_agg('(' || pg_get_expr(polqual, polrelid) || ')', ' or ' order by polname desc) filter (where polpermissive),
         string_agg('(' || pg_get_expr(polqual, polrelid) || ') and ', '' order by polname) filter (where not polpermissive)
    into allowing, limiting
    from pg_policy
   where polrelid = relation and polcmd in ('r', '*')
     and exists (select from unnest(polroles) as member where member = 0 or pg_has_role(person ->> 'role', member, 'usage'));
  begin
    execute format('create function oracle.verdict(json) returns boolean language sql stable
                    begin atomic select coalesce(%s(%s), false) from json_populate_record(null::%s, $1) as t; end',
                   limiting, coalesce(allowing, 'false'), relation);
    perform oracle.become(person);
    execute 'select oracle.verdict($1)' into answer using image;
    -- Undoes the function, which would count as DDL.
    raise exception using errcode = 'OR000', message = answer::text;
  exception
    when sqlstate 'OR000' then return sqlerrm;
    when others then return sqlerrm;
  end;
end
$f$;
create function oracle.become(person json) returns void language sql as $f$
  select set_config('role', person ->> 'role', true), set_config('request.jwt.claims', person ->> 'claims', true),
         set_config('request.jwt.claim.sub', person ->> 'sub', true), set_config('request.jwt.claim.role', person ->> 'role', true)
$f$;
create function oracle.judge(relation regclass, key int, conditions text, people json) returns json
language plpgsql set timezone = 'UTC' as $f$
declare
  person json; found json; columns text; place text; seen json; failure text; executed text; views json[] := '{}';
begin
  execute format('select json_build_object(''row'', row_to_json(t), ''matches'', array_to_json(array[%s])) from %s t where id = %s',
                 conditions, relation, key) into found;
  for person in select value from json_array_elements(people) loop
    select string_agg(quote_ident(attname), ', ' order by attnum),
           case when bool_or(attname = 'id') then 'id = ' || key when bool_or(attname = 'k2') then 'k2 = ' || (found -> 'row' ->> 'k2') end
      into columns, place
      from pg_attribute
     where attrelid = relation and attnum > 0 and not attisdropped
       and has_column_privilege(person ->> 'role', relation, attnum, 'SELECT')
       and has_schema_privilege(person ->> 'role', (select relnamespace from pg_class where oid = relation), 'USAGE');
    seen := null;
    failure := null;
    executed := null;
    if place is not null then
      begin
        perform oracle.become(person);
        execute format('select row_to_json(r) from (select %s from %s where %s) r', columns, relation, place) into seen;
        perform set_config('role', 'none', true);
      exception when others then
        failure := sqlerrm;
        executed := oracle.executed(relation, person, found -> 'row');
      end;
    end if;
    views := views || json_build_object('seen', seen, 'failure', failure, 'executed', executed, 'columns', columns);
  end loop;
  return json_build_object('row', found -> 'row', 'matches', found -> 'matches', 'views', array_to_json(views));
end
$f$";

/// A row, and what became of it for everybody.
#[derive(Deserialize)]
pub(super) struct Judged {
    pub(super) row: Value,
    /// For each filter.
    pub(super) matches: Vec<bool>,
    /// For each person.
    pub(super) views: Vec<View>,
}

#[derive(Debug, Deserialize)]
pub(super) struct View {
    pub(super) seen: Option<Value>,
    pub(super) failure: Option<String>,
    /// The SELECT fails, but only while it is planned.
    pub(super) executed: Option<String>,
    columns: Option<String>,
}

impl View {
    pub(super) fn may_read(&self, column: &str) -> bool {
        self.columns
            .as_ref()
            .is_some_and(|columns| columns.split(", ").any(|known| known == column))
    }
}

pub(super) struct Judge {
    client: Client,
    people: Value,
    conditions: String,
    /// By relation.
    known: HashMap<String, tokio_postgres::Statement>,
}

impl Judge {
    pub(super) async fn new(database: &TestDatabase, people: &[Person]) -> Judge {
        database.execute(JUDGE).await;
        let conditions: Vec<_> = FILTERS.iter().map(|(_, sql, _)| *sql).collect();
        Judge {
            client: database.connect().await,
            people: people.iter().map(Person::as_json).collect(),
            conditions: conditions.join(", "),
            known: HashMap::new(),
        }
    }

    pub(super) async fn row(&mut self, world: &str, key: i32) -> Judged {
        if !self.known.contains_key(world) {
            let statement = format!("select oracle.judge('{world}.t'::regclass, $1, $2, $3)");
            let statement = self.client.prepare(&statement).await.expect("the judge");
            self.known.insert(world.to_owned(), statement);
        }
        let row = self
            .client
            .query_one(
                &self.known[world],
                &[&key, &self.conditions, &Json(&self.people)],
            )
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
        row.get::<_, Json<Judged>>(0).0
    }
}
