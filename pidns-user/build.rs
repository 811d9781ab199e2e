//! Builds the eBPF objects of pidns-ebpf and leaves them in OUT_DIR, where `kernel::object` embeds them
//! from.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use aya_build::{Package, Toolchain};
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

/// The rustup name under which `cargo xtask setup` links Debian's compiler.
const LINKED: &str = "pidns-bpf";
const OBJECTS: [&str; 3] = ["pidns-trace-ebpf", "pidns-snapshot-ebpf", "pidns-bench-ebpf"];

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-env-changed=PIDNS_BPF_TOOLCHAIN");
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo did not set OUT_DIR")?);
    println!("cargo:rerun-if-env-changed=AYA_BUILD_SKIP");
    if env::var_os("AYA_BUILD_SKIP").is_some_and(|skip| skip == "1" || skip.eq_ignore_ascii_case("true")) {
        // For lints alone: the embedding needs files, and a program with them says at once that they are empty.
        for object in OBJECTS {
            fs::write(embedded(&out, object), [])?;
        }
        return Ok(());
    }

    let package_dir =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("cargo did not set CARGO_MANIFEST_DIR")?)
            .join("../pidns-ebpf");
    let toolchain = find_toolchain()?;
    // SAFETY: the build script has no other thread yet. Only this script and what it starts see these.
    unsafe {
        if toolchain == LINKED {
            // The compiler that Debian ships is a stable one, and an eBPF target needs its library built from source.
            env::set_var("RUSTC_BOOTSTRAP", "1");
        }
        // aya-build prints every line of the inner cargo as a warning, which cargo then repeats at each build.
        env::set_var("CARGO_TERM_QUIET", "true");
    }
    aya_build::build_ebpf(
        [Package {
            name: "pidns-ebpf",
            root_dir: package_dir.to_str().context("the path of pidns-ebpf is not UTF-8")?,
            ..Package::default()
        }],
        Toolchain::Custom(&toolchain),
    )
    .context("the eBPF objects were not built; the compiler's own words are above. If it is the toolchain that is missing: cargo xtask setup")?;
    for object in OBJECTS {
        let bytes = fs::read(out.join(object)).with_context(|| format!("aya-build left no {object}"))?;
        let bytes =
            without_debug(&bytes).with_context(|| format!("{object} cannot be written without its DWARF"))?;
        fs::write(embedded(&out, object), bytes)?;
    }
    Ok(())
}

/// Where `kernel::object` takes an object from.
fn embedded(out: &Path, object: &str) -> PathBuf {
    out.join(format!("{object}.embedded"))
}

/// The object without DWARF, which is nine tenths of it: whoever runs the program would have it in memory. What the kernel
/// reads is BTF; `cargo xtask build` checks the object that has both.
fn without_debug(object: &[u8]) -> object::build::Result<Vec<u8>> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        section.delete = section.name.starts_with(b".debug_") || section.name.starts_with(b".rel.debug_");
    }
    builder.delete_orphans();
    // LLVM keeps the names of sections and of symbols in one table; what is written here takes one for each.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut bytes = Vec::new();
    builder.write(&mut bytes)?;
    Ok(bytes)
}

/// A toolchain that can build `core` for eBPF: a nightly with its sources, else the linked one.
fn find_toolchain() -> anyhow::Result<String> {
    if Command::new("bpf-linker").arg("--version").output().is_err() {
        bail!("bpf-linker is not on PATH: run `cargo xtask setup`, which installs it");
    }
    let nightly = env::var("PIDNS_BPF_TOOLCHAIN").unwrap_or_else(|_| "nightly".to_owned());
    for toolchain in [nightly.as_str(), LINKED] {
        if has_sources(toolchain) {
            return Ok(toolchain.to_owned());
        }
    }
    bail!(
        "no Rust toolchain here can build eBPF: neither a nightly with the component rust-src nor `{LINKED}`. \
         Run `cargo xtask setup`, which says what it installs"
    )
}

fn has_sources(toolchain: &str) -> bool {
    let output = Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]).output();
    let Ok(output) = output else { return false };
    let sysroot = String::from_utf8_lossy(&output.stdout);
    output.status.success() && Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").exists()
}
