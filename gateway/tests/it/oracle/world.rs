//! A random schema: a table with policies, a table of members that the policies may query, and functions that hide either.

use super::{
    chance::Chance,
    people::{IDS, Roles},
};

pub(super) const COLUMNS: [&str; 10] = [
    "id", "k2", "room", "owner", "label", "n", "flag", "tags", "gen", "late",
];
/// The filters that everybody uses: as the client writes them, and as SQL; the column that they name.
pub(super) const FILTERS: [(Option<&str>, &str, Option<&str>); 5] = [
    (None, "true", None),
    (Some("room=eq.1"), "(room = 1) is true", Some("room")),
    (Some("room=eq.2"), "(room = 2) is true", Some("room")),
    (Some("n=gt.4"), "(n > 4) is true", Some("n")),
    (
        Some("label=eq.gold"),
        "(label = 'gold') is true",
        Some("label"),
    ),
];
const WHO: [&str; 5] = [IDS[0], IDS[1], IDS[2], IDS[3], "usr_ada"];

pub(super) struct World {
    /// Its schema; what roles may not look into is in the schema of this name with `_private`.
    pub(super) name: String,
    /// How it was made, and what was changed since.
    pub(super) history: Vec<String>,
    partitioned: bool,
    /// Functions hide what they read: nothing tells the gateway of changes there but the periodic re-check.
    hiding: bool,
    /// Policies read nothing of the row but the room: subscriptions to a room are decided once, and must be asked about again.
    by_room: bool,
    keys: Vec<i32>,
    next_key: i32,
    policies: usize,
}

pub(super) struct Step {
    pub(super) sql: String,
    /// The row before it, and the row after it.
    pub(super) before: Option<i32>,
    pub(super) after: Option<i32>,
}

impl World {
    pub(super) fn create(name: String, hiding: bool, roles: &Roles, chance: &mut Chance) -> World {
        let mut world = World {
            name,
            history: Vec::new(),
            partitioned: chance.percent(25),
            hiding,
            by_room: chance.percent(50),
            keys: Vec::new(),
            next_key: 1,
            policies: 0,
        };
        let sql = world.schema(roles, chance);
        world.history.push(sql);
        world
    }

    fn schema(&mut self, roles: &Roles, chance: &mut Chance) -> String {
        let s = self.name.clone();
        let Roles { owner, .. } = roles;
        // The private schema is for policies' creators and for the gateway's login; the roles may not look into it.
        let mut sql = format!(
            "create schema {s}; grant usage on schema {s} to public;
             create schema {s}_private; grant usage on schema {s}_private to tidings_server;
             create table {s}.members (id int generated always as identity primary key, room int, who text, level int, banned boolean not null default false, note text);
             create table {s}_private.ranks (who text primary key, rank int);
             grant select on {s}_private.ranks to public;
             create table {s}.t (
               id int, k2 int, room int, owner uuid, gone text default 'gone', label text, n int, flag boolean, tags jsonb not null default '{{}}',
               gen int generated always as (coalesce(n, 0) % 3) stored, primary key (id)){};
             alter table {s}.t drop column gone;
             alter table {s}.t add column late text;\n",
            if self.partitioned { " partition by hash (id)" } else { "" },
        );
        if self.partitioned {
            for part in 0..2 {
                sql += &format!(
                    "create table {s}.t_{part} partition of {s}.t for values with (modulus 2, remainder {part});\n"
                );
            }
        }
        if chance.percent(50) {
            sql += &format!("alter table {s}.t replica identity full;\n");
        }
        sql += &self.functions(chance);
        sql += &format!("alter table {s}.t owner to {owner};\n");
        for role in roles.granted() {
            sql += &self.grant(&role, chance);
        }
        for role in chance.some(&roles.granted(), 80) {
            sql += &format!("grant select on {s}.members to {role};\n");
        }
        sql += &self.members_policies(roles, chance);
        if chance.percent(90) {
            sql += &format!("alter table {s}.t enable row level security;\n");
        }
        if chance.percent(45) {
            sql += &format!("alter table {s}.t force row level security;\n");
        }
        for _ in 0..1 + chance.below(3) {
            sql += &self.policy(true, roles, chance);
        }
        for _ in 0..chance.below(3) {
            sql += &self.policy(false, roles, chance);
        }
        for _ in 0..16 {
            sql += &self.member(chance);
        }
        for (rank, who) in WHO.iter().enumerate() {
            sql += &format!("insert into {s}_private.ranks values ('{who}', {rank});\n");
        }
        sql + &format!("select tidings.watch('{s}.t');")
    }

    fn functions(&self, chance: &mut Chance) -> String {
        let s = &self.name;
        let mut sql = String::new();
        let mut function = |name: &str,
                            arguments: &str,
                            result: &str,
                            definer: bool,
                            query: &str| {
            let body = match self.hiding && chance.percent(60) {
                true => format!("as $f$ {query} $f$"),
                false => format!("begin atomic {query}; end"),
            };
            let security = if definer {
                "security definer"
            } else {
                "security invoker"
            };
            sql += &format!(
                "create function {s}{name}({arguments}) returns {result} language sql stable {security} {body};\n"
            );
        };
        let joined = format!(
            "select exists (select from {s}.members m where m.room = r and m.who = auth.jwt() ->> 'sub' and not m.banned)"
        );
        function(".joined", "r int", "boolean", true, &joined);
        function(".joined_too", "r int", "boolean", false, &joined);
        function("_private.joined", "r int", "boolean", true, &joined);
        function(
            "_private.small",
            "n int",
            "boolean",
            false,
            "select n < 5 or n is null",
        );
        function(
            ".row_ok",
            &format!("r {s}.t"),
            "boolean",
            false,
            "select r.n % 2 = 0 or r.flag",
        );
        function(
            ".my_rooms",
            "",
            "setof int",
            true,
            &format!("select m.room from {s}.members m where m.who = auth.jwt() ->> 'sub'"),
        );
        sql + &format!(
            "create view {s}.present with (security_barrier) as select m.room, m.who from {s}.members m where not m.banned;
             grant select on {s}.present to public;\n"
        )
    }

    fn grant(&self, role: &str, chance: &mut Chance) -> String {
        let s = &self.name;
        match chance.below(10) {
            0 => String::new(),
            1..=3 => {
                let mut columns = chance.some(&COLUMNS, 60);
                // The judge needs one of the two to find the row.
                let key = chance.pick(&["id", "k2"]);
                if !columns.contains(&key) {
                    columns.push(key);
                }
                format!(
                    "grant select ({}) on {s}.t to {role};\n",
                    columns.join(", ")
                )
            }
            _ => format!("grant select on {s}.t to {role};\n"),
        }
    }

    fn members_policies(&self, roles: &Roles, chance: &mut Chance) -> String {
        let s = &self.name;
        if chance.percent(25) {
            return String::new();
        }
        let mut sql = format!("alter table {s}.members enable row level security;\n");
        for place in 0..1 + chance.below(2) {
            let condition = chance.pick(&[
                "who = auth.jwt() ->> 'sub'".to_owned(),
                "true".to_owned(),
                "not banned".to_owned(),
                "who = auth.uid()::text".to_owned(),
                "room < 3".to_owned(),
                format!("exists (select from {s}_private.ranks r where r.who = members.who and r.rank < 3)"),
            ]);
            let kind = match place {
                0 => "permissive",
                _ => chance.pick(&["permissive", "restrictive"]),
            };
            sql += &format!(
                "create policy m{place} on {s}.members as {kind} for select to {} using ({condition});\n",
                self.to(roles, chance)
            );
        }
        sql
    }

    fn to(&self, roles: &Roles, chance: &mut Chance) -> String {
        match chance.below(5) {
            0..=2 => "public".to_owned(),
            3 => format!("authenticated, {}", roles.parent),
            _ => chance.some(&roles.granted(), 40).join(", "),
        }
    }

    fn policy(&mut self, permissive: bool, roles: &Roles, chance: &mut Chance) -> String {
        self.policies += 1;
        format!(
            "create policy p{}{} on {}.t as {} for {} to {} using ({});\n",
            chance.below(10),
            self.policies,
            self.name,
            if permissive {
                "permissive"
            } else {
                "restrictive"
            },
            chance.pick(&["select", "select", "all"]),
            self.to(roles, chance),
            self.condition(2, chance),
        )
    }

    fn condition(&self, depth: usize, chance: &mut Chance) -> String {
        if depth == 0 || chance.percent(45) {
            return self.atom(chance);
        }
        let one = self.condition(depth - 1, chance);
        match chance.below(6) {
            0 => format!("not ({one})"),
            1 => format!("coalesce({one}, false)"),
            2 => format!(
                "case when {} then {one} else {} end",
                self.atom(chance),
                self.atom(chance)
            ),
            3 => format!("({one}) and ({})", self.condition(depth - 1, chance)),
            _ => format!("({one}) or ({})", self.condition(depth - 1, chance)),
        }
    }

    fn atom(&self, chance: &mut Chance) -> String {
        let s = &self.name;
        let sub = "auth.jwt() ->> 'sub'";
        // Conditions on the room alone come often: they make subscriptions that are decided once.
        if self.by_room || chance.percent(30) {
            return chance.pick(&[
                format!("exists (select from {s}.members m where m.room = t.room and m.who = {sub})"),
                format!("room in (select m.room from {s}.members m where m.who = {sub} and not m.banned)"),
                format!("not exists (select from {s}.members m where m.room = t.room and m.who = {sub} and m.banned)"),
                format!("(select count(*) from {s}.members m where m.room = t.room) > 1"),
                format!("(select max(m.level) from {s}.members m where m.room = t.room and m.who = {sub}) > 1"),
                format!("{s}.joined(room)"),
                format!("{s}.joined_too(t.room)"),
                format!("{s}_private.joined(room)"),
                format!("room in (select {s}.my_rooms())"),
                format!("room = any (array(select p.room from {s}.present p where p.who = {sub}))"),
                format!("exists (select from {s}.members m left join {s}.members o on o.room = m.room and o.banned where m.room = t.room and o.id is null)"),
                "room = (auth.jwt() ->> 'team')::int".to_owned(),
                "room in (1, 3)".to_owned(),
            ]);
        }
        chance.pick(&[
            "true".to_owned(),
            "room <> 2".to_owned(),
            "owner is null".to_owned(),
            "owner = auth.uid()".to_owned(),
            "owner = (select auth.uid())".to_owned(),
            format!("owner::text = {sub}"),
            "label = auth.jwt() ->> 'tier'".to_owned(),
            "label in ('a', 'gold')".to_owned(),
            "label is distinct from 'b'".to_owned(),
            "n = (auth.jwt() -> 'org' ->> 'id')::int".to_owned(),
            "coalesce((auth.jwt() -> 'org' ->> 'admin')::boolean, false)".to_owned(),
            "flag".to_owned(),
            "flag is not true".to_owned(),
            "gen = 1".to_owned(),
            "late is null".to_owned(),
            "late like 'x%'".to_owned(),
            "tags ? 'x'".to_owned(),
            "tags ->> 'k' = 'v'".to_owned(),
            format!("{s}.row_ok(t)"),
            "t is not null".to_owned(),
            format!("{s}_private.small(n)"),
            format!("n > (select r.rank from {s}_private.ranks r where r.who = {sub})"),
            "current_user = 'authenticated'".to_owned(),
            "auth.role() = 'anon'".to_owned(),
            "10 / n > 2".to_owned(),
        ])
    }

    /// Changes who is a member of what.
    fn member(&self, chance: &mut Chance) -> String {
        let s = &self.name;
        let (who, room) = (chance.pick(&WHO), [1, 1, 2, 2, 3, 4][chance.below(6)]);
        let some = format!("(select id from {s}.members where who = '{who}' order by id limit 1)");
        match chance.below(8) {
            0 => format!("update {s}.members set banned = not banned where id = {some};\n"),
            1 => format!("update {s}.members set room = {room} where id = {some};\n"),
            2 => format!("delete from {s}.members where id = {some};\n"),
            3 => format!(
                "update {s}.members set who = '{}' where id = {some};\n",
                chance.pick(&WHO)
            ),
            4 => format!(
                "update {s}.members set level = {}, note = 'touched' where room = {room};\n",
                chance.below(4)
            ),
            5 => format!(
                "update {s}_private.ranks set rank = {} where who = '{who}';\n",
                chance.below(8)
            ),
            _ => format!(
                "insert into {s}.members (room, who, level) values ({room}, '{who}', {});\n",
                chance.below(4)
            ),
        }
    }

    /// What happens between two rounds of changes, each statement in a transaction of its own.
    pub(super) fn turn(&mut self, roles: &Roles, chance: &mut Chance) -> Vec<String> {
        let mut turn: Vec<String> = (0..2 + chance.below(3))
            .map(|_| self.member(chance))
            .collect();
        if self.hiding {
            let s = self.name.clone();
            turn.push(match chance.below(9) {
                0 => self.policy(true, roles, chance),
                1 => self.policy(false, roles, chance),
                2 => format!(
                    "do $d$ declare p name; begin select polname into p from pg_policy where polrelid = '{s}.t'::regclass order by polname limit 1;
                     if found then execute format('drop policy %I on {s}.t', p); end if; end $d$;"
                ),
                3 => format!("alter table {s}.t disable row level security;"),
                4 | 5 => format!("alter table {s}.t enable row level security;"),
                6 => format!(
                    "revoke select on {s}.t from {0}; {1}",
                    "authenticated",
                    self.grant("authenticated", chance)
                ),
                7 => format!("alter table {s}.t force row level security;"),
                // Tells the gateway to ask everybody again, which for what functions hide only time would.
                _ => format!("create or replace function {s}.again() returns int language sql as 'select 1';"),
            });
        }
        self.history.extend(turn.iter().cloned());
        turn
    }

    pub(super) fn step(&mut self, chance: &mut Chance) -> Step {
        let s = &self.name;
        let existing = (!self.keys.is_empty()).then(|| chance.below(self.keys.len()));
        match (existing, chance.below(10)) {
            (Some(place), 0..=1) => {
                let key = self.keys.swap_remove(place);
                Step {
                    sql: format!("delete from {s}.t where id = {key}"),
                    before: Some(key),
                    after: None,
                }
            }
            (Some(place), 2..=6) => {
                let key = self.keys[place];
                let mut after = key;
                let columns =
                    chance.some(&["room", "owner", "label", "n", "flag", "tags", "late"], 30);
                let mut set: Vec<String> = columns
                    .into_iter()
                    .map(|column| format!("{column} = {}", value(column, chance)))
                    .collect();
                if !self.partitioned && chance.percent(10) {
                    after = self.take_key();
                    self.keys[place] = after;
                    set.push(format!("id = {after}, k2 = {}", after + 100_000));
                }
                Step {
                    sql: format!(
                        "update {}.t set {} where id = {key}",
                        self.name,
                        set.join(", ")
                    ),
                    before: Some(key),
                    after: Some(after),
                }
            }
            _ => {
                let key = self.take_key();
                self.keys.push(key);
                let columns = ["room", "owner", "label", "n", "flag", "tags", "late"];
                let values = columns.map(|column| value(column, chance)).join(", ");
                Step {
                    sql: format!(
                        "insert into {}.t (id, k2, {}) values ({key}, {}, {values})",
                        self.name,
                        columns.join(", "),
                        key + 100_000
                    ),
                    before: None,
                    after: Some(key),
                }
            }
        }
    }

    fn take_key(&mut self) -> i32 {
        self.next_key += 1;
        self.next_key - 1
    }
}

fn value(column: &str, chance: &mut Chance) -> String {
    if column != "tags" && chance.percent(15) {
        return "null".to_owned();
    }
    match column {
        "room" => (1 + chance.below(4)).to_string(),
        "owner" => format!("'{}'", chance.pick(&IDS)),
        "label" => chance
            .pick(&["'a'", "'b'", "'gold'", "'free'", "'a\"''b'"])
            .to_owned(),
        "n" => chance.below(10).to_string(),
        "flag" => chance.pick(&["true", "false"]).to_owned(),
        "tags" => chance
            .pick(&[
                "'{}'",
                "'{\"x\": 1}'",
                "'{\"k\": \"v\"}'",
                "'{\"k\": [null, 1.50]}'",
            ])
            .to_owned(),
        _ => chance.pick(&["'x1'", "'y'", "''"]).to_owned(),
    }
}
