//! What `tidings doctor` has found. As JSON, this is its output.

use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Report {
    /// Absent if the login may not look, or schema `tidings` is not there.
    pub(super) server: Option<Server>,
    pub(super) tables: Vec<Table>,
    pub(super) findings: Vec<Finding>,
}

#[derive(Serialize)]
pub(super) struct Server {
    pub(super) version: String,
    pub(super) version_number: i32,
    pub(super) login: String,
    pub(super) superuser: bool,
    /// The login may make temporary functions in this database.
    pub(super) temporary: bool,
    #[serde(skip)]
    pub(super) temporary_mend: String,
    pub(super) standby: bool,
    /// An event trigger tells of DDL; without it, it is found by comparison.
    pub(super) ddl_told: bool,
    #[serde(skip)]
    pub(super) ddl_mend: String,
    pub(super) track_commit_timestamp: bool,
    /// A gateway reads all the time, and nobody rings the bell.
    pub(super) bell_silenced: bool,
    /// How full the server's queue of notifications is, from 0 to 1.
    pub(super) notify_queue: f64,
    /// Sessions of gateways.
    pub(super) sessions: i64,
    pub(super) retention: String,
    pub(super) log_bytes: i64,
    pub(super) slots_in_use: i64,
    pub(super) recheck_seconds: f64,
}

#[derive(Serialize)]
pub(super) struct Table {
    pub(super) name: String,
    /// Who brought it: `explicit`, `publication` or `setting`.
    pub(super) origin: String,
    pub(super) row_level_security: RowLevelSecurity,
    /// What switches it on.
    #[serde(skip)]
    pub(super) secure: String,
    pub(super) partitioned: bool,
    /// Other tables inherit from it, without being partitions.
    pub(super) inherited: bool,
    /// `present`, `missing`, `disabled` or `stale`.
    pub(super) triggers: String,
    #[serde(skip)]
    pub(super) mend: Option<String>,
    pub(super) roles: Vec<Role>,
    pub(super) rests_on: Vec<Dependency>,
    /// Functions that hide what they read, and relations that tell nothing of their changes.
    pub(super) hidden: Vec<Hidden>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RowLevelSecurity {
    Off,
    On,
    Forced,
}

/// What a role may read of a table.
#[derive(Serialize)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) exists: bool,
    /// The gateway's login may become it.
    pub(super) may_become: bool,
    #[serde(skip)]
    pub(super) mend: String,
    pub(super) bypasses_row_level_security: bool,
    pub(super) scope: Scope,
    /// The scope in words.
    pub(super) why: String,
    pub(super) readable: Vec<String>,
    pub(super) unreadable: Vec<String>,
    /// The policies for SELECT that hold for the role.
    pub(super) policies: Vec<String>,
    /// The columns that these read; absent when they read the whole row.
    pub(super) reads: Option<Vec<String>>,
    /// Columns that refer to rows of other tables. A filter that fixes one of them, and nothing that the policies read, is
    /// refused to those who do not see the row there.
    pub(super) parents: Vec<String>,
    /// The policies are evaluated in a temporary function.
    pub(super) needs_function: bool,
}

/// How often the policies are evaluated for a subscriber.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Scope {
    /// Never: the role may not read the table, or no policy lets it see a row, or no token may name it.
    Refused,
    /// Never: the role sees every row.
    Everything,
    /// Once, whatever the subscription names.
    Subscription,
    /// Once, if the subscription names a value of the one column that the policies read.
    Session,
    /// For every row.
    Row,
}

/// A table that the policies of a watched table read.
#[derive(Serialize)]
pub(super) struct Dependency {
    pub(super) table: String,
    pub(super) columns: Vec<String>,
    /// A new row could take a right away.
    pub(super) inserts: bool,
    pub(super) inherited: bool,
    /// `present`, `missing`, `disabled`, `stale` or `outdated`.
    pub(super) triggers: String,
    #[serde(skip)]
    pub(super) mends_itself: bool,
    #[serde(skip)]
    pub(super) mend: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Hidden {
    pub(super) name: String,
    /// PostgreSQL could parse its body, if it were written as one.
    pub(super) parsable: bool,
}

#[derive(Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) table: Option<String>,
    pub(super) text: String,
    /// SQL or a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mend: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    Problem,
    Warning,
}

impl Report {
    pub(super) fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }
}
