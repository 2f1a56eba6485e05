//! The gateway's cursors, compiled here by themselves: all of the gateway would take minutes to build with instrumentation.

#[path = "../../gateway/src/feed/mark.rs"]
pub mod mark;
#[path = "../../gateway/src/feed/snapshot.rs"]
pub mod snapshot;
#[path = "../../gateway/src/feed/source.rs"]
pub mod source;
