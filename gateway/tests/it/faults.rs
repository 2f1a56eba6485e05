//! PostgreSQL and the way to it fail in every way that we know of, while many write and listen: each committed change still
//! arrives once and in order, or the gateway says loudly what it could not do.

mod clock;
mod failover;
mod full;
mod late;
mod lost;
mod read_only;
mod restarts;
mod server;
mod silence;
mod stand;
mod terminated;
mod wraparound;
