//! What the fuzz targets share: readers written a second time, from the wire contract alone, to compare ours with, and the
//! gateway's own files that need neither a database nor a socket.

pub mod feed;
pub mod filter;
pub mod frame;
pub mod json;
pub mod token;
