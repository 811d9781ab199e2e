//! How the eBPF objects are linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf") {
        // LLVM may rotate the blocks of a loop: execution enters at a middle block, and the last block falls through
        // to the first. Verifiers before 6.4 accept a loop only if it ends with a jump back ("back-edge from insn").
        // So keep the order of blocks.
        println!("cargo::rustc-link-arg-bins=--llvm-args=-disable-block-placement");
    }
}
