//! Faults that the oracle must notice, or it is worth nothing.

use crate::support::TestDatabase;

#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// Restrictive policies do not count.
    Unrestricted,
    /// Nothing tells of changes in the tables that policies read.
    Undoubting,
    /// Policies count for every role.
    Indiscriminate,
    /// Grants on columns do not count.
    AllColumns,
    /// `FORCE ROW LEVEL SECURITY` does not count.
    Unforced,
}

impl Fault {
    pub(super) const ALL: [Fault; 5] = [
        Fault::Unrestricted,
        Fault::Undoubting,
        Fault::Indiscriminate,
        Fault::AllColumns,
        Fault::Unforced,
    ];

    /// Replaces a function of this database by one that is wrong.
    pub(super) async fn plant(self, database: &TestDatabase) {
        let (function, right, wrong) = match self {
            Fault::Unrestricted => (
                "tidings.access(regclass, text)",
                "filter (where not p.polpermissive)",
                "filter (where false)",
            ),
            Fault::Undoubting => (
                "tidings.capture_dependency()",
                "begin",
                "begin return null;",
            ),
            Fault::Indiscriminate => (
                "tidings.access(regclass, text)",
                "where member = 0 or pg_catalog.pg_has_role(role_oid, member, 'USAGE')",
                "where true",
            ),
            Fault::AllColumns => (
                "tidings.access(regclass, text)",
                "and pg_catalog.has_column_privilege(role_oid, access.relation, a.attnum, 'SELECT')",
                "",
            ),
            Fault::Unforced => (
                "tidings.is_restricted(oid, oid)",
                "c.relforcerowsecurity or",
                "",
            ),
        };
        let definition = database
            .text(&format!("pg_get_functiondef('{function}'::regprocedure)"))
            .await;
        let faulty = definition.replace(right, wrong);
        assert_ne!(
            definition, faulty,
            "{function} has changed: where is {right:?} now?"
        );
        database.execute(&faulty).await;
    }
}
