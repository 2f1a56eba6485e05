//! A private PostgreSQL for development and tests: found on the machine or fetched, started on 127.0.0.1 with a password of
//! its own, and never left behind, not even when the process that started it is killed.
//!
//! [`find_or_fetch`] answers with an [`Installation`] (a directory of binaries), [`Cluster::start`] runs one of them on a data
//! directory, [`Cluster::start_temporary`] on one that disappears with the cluster. Everything here blocks for up to a minute
//! and, when it fetches, for longer: call it from a thread that may wait. Unix only.

mod account;
mod cluster;
mod data;
mod error;
mod fetch;
mod installation;
mod lock;
mod postmaster;
mod process;
mod supervisor;

pub use cluster::{Cluster, Options};
pub use error::Error;
pub use fetch::{fetch, find_or_fetch};
pub use installation::{Installation, Origin, find};
