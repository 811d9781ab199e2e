//! The part of the kernel side that user space uses: the wire records, their checked decoding, and the names of the
//! eBPF object's maps, programs and numbers.
//!
//! The object itself is the binary target `pidns-trace-ebpf` of this package, built for `bpfel-unknown-none`.
#![no_std]

pub mod abi;
