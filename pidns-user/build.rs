//! Builds the eBPF objects of pidns-ebpf in OUT_DIR. `kernel::object` embeds them from there.
//!
//! An inner cargo builds them, in a directory that all profiles share. It builds them again only when their sources,
//! dependencies or toolchain have changed.

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use flate2::{Compression, write::ZlibEncoder};
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

/// The rustup name of Debian's compiler, linked by `cargo xtask setup`.
const LINKED: &str = "pidns-bpf";
/// The objects' profile in Cargo.toml, for every profile of the program.
const PROFILE: &str = "ebpf";
const OBJECTS: [&str; 3] = ["pidns-trace-ebpf", "pidns-snapshot-ebpf", "pidns-bench-ebpf"];

fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-env-changed=PIDNS_BPF_TOOLCHAIN");
    println!("cargo::rerun-if-env-changed=AYA_BUILD_SKIP");
    // The profile, the pinned dependencies and the sources of the objects.
    for path in ["../Cargo.toml", "../Cargo.lock", "../pidns-ebpf"] {
        println!("cargo::rerun-if-changed={path}");
    }
    println!("cargo::rustc-env=PIDNS_TRACE_RUSTC={}", rustc_version()?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    if env::var_os("AYA_BUILD_SKIP").is_some_and(|skip| skip == "1" || skip.eq_ignore_ascii_case("true")) {
        // Only for lints: embedding needs the files. A program that was built like this reports at once that they are
        // empty.
        for object in OBJECTS {
            fs::write(embedded(&out, object), [])?;
        }
        return Ok(());
    }

    let built = build(&out)?;
    for object in OBJECTS {
        let path = built.join(object);
        let bytes = fs::read(&path).with_context(|| format!("cargo left no {}", path.display()))?;
        let bytes =
            without_debug(&bytes).with_context(|| format!("{object} cannot be written without its DWARF"))?;
        fs::write(embedded(&out, object), compressed(&bytes)?)?;
    }
    Ok(())
}

/// Version of the compiler that builds the program: "1.95.0".
fn rustc_version() -> anyhow::Result<String> {
    let output = Command::new(variable("RUSTC")?).arg("--version").output().context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().nth(1).unwrap_or("unknown").to_owned())
}

fn variable(name: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| format!("cargo did not set {name}"))
}

/// Path from which `kernel::object` embeds a compressed object.
fn embedded(out: &Path, object: &str) -> PathBuf {
    out.join(format!("{object}.zlib"))
}

/// Builds the objects and returns their directory.
fn build(out: &Path) -> anyhow::Result<PathBuf> {
    // OUT_DIR is TARGET/PROFILE/build/pidns-user-HASH/out or, with `--target`, TARGET/TRIPLE/PROFILE/…. `cargo xtask
    // build` looks for the objects in the same directory.
    let mut target_dir = out.ancestors().nth(4).context("OUT_DIR is in no target folder")?;
    if target_dir.ends_with(variable("TARGET")?) {
        target_dir = target_dir.parent().context("OUT_DIR is in no target folder")?;
    }
    let target_dir = target_dir.join("ebpf");
    let target = match variable("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    // Line info contains file names. With the builder's own directories, each builder would get different objects.
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = workspace.parent().context("the package is in no workspace")?;
    // rustup sets CARGO_HOME. Without rustup's cargo, it is the default directory.
    let cargo_home = match env::var_os("CARGO_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(variable("HOME")?).join(".cargo"),
    };
    let flags = [
        &format!("--cfg=bpf_target_arch=\"{}\"", variable("CARGO_CFG_TARGET_ARCH")?),
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        &format!("--remap-path-prefix={}=.", workspace.display()),
        &format!("--remap-path-prefix={}=/cargo", cargo_home.display()),
    ];
    let toolchain = find_toolchain()?;
    let mut cargo = Command::new("rustup");
    cargo.args([
        "run",
        &toolchain,
        "cargo",
        "build",
        "--package",
        "pidns-ebpf",
        "--bins",
        "--profile",
        PROFILE,
    ]);
    // With --quiet, cargo only prints warnings and errors.
    cargo.args(["--quiet", "-Zbuild-std=core", "--target", target, "--target-dir"]).arg(&target_dir);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    // The outer cargo sets these for the host's crates.
    cargo.env_remove("RUSTC").env_remove("RUSTC_WORKSPACE_WRAPPER");
    if toolchain == LINKED {
        // Debian's compiler is a stable one, but an eBPF target needs its library built from source.
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
    let output = cargo.output().context("cannot start rustup")?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!(
            "the eBPF objects were not built. If the toolchain is missing, run `cargo xtask setup`.\n{messages}"
        );
    }
    for line in messages.lines() {
        println!("cargo::warning={line}");
    }
    Ok(target_dir.join(target).join(PROFILE))
}

/// Removes DWARF, five sixths of the object: each running program would have it in memory. The kernel only reads BTF.
/// `cargo xtask build` checks the object that has both.
fn without_debug(object: &[u8]) -> object::build::Result<Vec<u8>> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        section.delete = section.name.starts_with(b".debug_") || section.name.starts_with(b".rel.debug_");
    }
    builder.delete_orphans();
    // LLVM keeps names of sections and symbols in one table; the writer used here needs one for each.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut bytes = Vec::new();
    builder.write(&mut bytes)?;
    Ok(bytes)
}

/// Compresses an object.
fn compressed(object: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(object)?;
    encoder.finish()
}

/// Finds a toolchain that can build `core` for eBPF: a nightly with sources, otherwise the linked one.
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
         Run `cargo xtask setup`, which lists what it installs"
    )
}

fn has_sources(toolchain: &str) -> bool {
    let output = Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]).output();
    let Ok(output) = output else { return false };
    let sysroot = String::from_utf8_lossy(&output.stdout);
    output.status.success() && Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").exists()
}
