//! How the eBPF objects are linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf") {
        // LLVM likes to begin a loop in its middle, so that its end falls through into its head. Verifiers before 6.4
        // take a jump back for a loop, and refuse a fall ("back-edge from insn"): leave the blocks where they are.
        println!("cargo::rustc-link-arg-bins=--llvm-args=-disable-block-placement");
    }
}
