//! The ABI between the eBPF object and user space.
//!
//! A record consists of integers and byte arrays. It has a fixed part, which depends on its kind, and a tail of PIDs:
//! one `u32` per level for each process in the record. In the record of an exec, the file name and the arguments
//! follow. [`decode::decode`] checks all of it.

pub mod counters;
pub mod decode;
pub mod holders;
pub mod kinds;
pub mod names;
pub mod namespace_counters;
pub mod record;
pub mod snapshot;
pub mod symbols;
mod vocabulary;

pub use counters::*;
pub use decode::{DecodeError, Namespaced, Process, Record, Refused, decode};
pub use kinds::*;
pub use record::*;
