//! All that knows aya or the running kernel: BTF, loading and attaching, the ring buffer, counters.

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
mod ties;
pub mod zombies;

/// The eBPF object, as pidns-user's build script left it.
pub mod object {
    /// The programs of the product.
    pub static TRACE: &[u8] =
        aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pidns-trace-ebpf.embedded"));

    /// The program of snapshots, in an object of its own: neither it nor the stream waits for the other's to load.
    pub static SNAPSHOT: &[u8] =
        aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pidns-snapshot-ebpf.embedded"));

    /// The programs that `cargo xtask bench` compares with.
    #[cfg(feature = "test-tools")]
    pub static BENCH: &[u8] =
        aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pidns-bench-ebpf.embedded"));
}
