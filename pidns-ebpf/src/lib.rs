//! What user space sees of the kernel side: the wire records, their checked decoding, and the names of the
//! maps, programs and globals of the eBPF object.
//!
//! The object itself is the binary target `pidns-trace-ebpf` of this package, built for `bpfel-unknown-none`.
#![no_std]

pub mod abi;
