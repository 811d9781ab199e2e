//! The ABI between the eBPF object and user space.
//!
//! A record is plain integers and byte arrays: a fixed part that depends on its kind, then a tail of PIDs (one
//! `u32` a level for each process in the record, so a record is as long as its processes are deep), then, for
//! an exec, bytes. [`decode::decode`] checks all of it.

pub mod counters;
pub mod decode;
pub mod names;
pub mod namespace_counters;
pub mod record;
pub mod snapshot;
pub mod symbols;
pub mod ties;
mod vocabulary;

pub use counters::*;
pub use decode::{DecodeError, Namespaced, Process, Record, Refused, decode};
pub use record::*;
