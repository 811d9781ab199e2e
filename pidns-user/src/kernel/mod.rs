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
pub mod reorder;
pub mod ring;
pub mod sandbox;
pub mod stats;
pub mod sweep;
pub mod zombies;

/// The eBPF objects that pidns-user's build script made.
pub mod object {
    /// The programs of the live stream.
    pub static TRACE: &[u8] =
        aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pidns-trace-ebpf.embedded"));

    /// The programs for snapshots. They are a separate object, so that a command loads only the programs that it needs.
    pub static SNAPSHOT: &[u8] =
        aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pidns-snapshot-ebpf.embedded"));

    /// The baseline programs of `cargo xtask bench`.
    #[cfg(feature = "test-tools")]
    pub static BENCH: &[u8] =
        aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pidns-bench-ebpf.embedded"));
}
