//! The crate with real servers: those of this machine and, once, one that is fetched.

mod cluster;
mod copies;
mod fetched;
mod orphan;
mod support;
