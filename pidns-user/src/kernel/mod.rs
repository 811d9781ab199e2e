//! Everything that needs aya or the running kernel: BTF, loading and attaching, the ring buffer, counters.

mod attach;
pub mod btf;
pub mod btf_report;
pub mod capabilities;
pub mod clock;
pub mod error;
#[cfg(any(test, feature = "test-tools"))]
pub mod extract;
mod fill_in;
pub mod gauges;
mod holders;
pub mod hooks;
pub mod iterator;
pub mod kfuncs;
pub mod layout;
pub mod load;
pub mod log;
pub mod memory;
pub mod namespace;
pub mod namespace_counters;
mod namespace_part;
pub mod object;
pub mod reorder;
pub mod ring;
pub mod sandbox;
pub mod stats;
pub mod sweep;
pub mod zombies;
