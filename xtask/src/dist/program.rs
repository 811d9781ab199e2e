//! Builds the published program: static, optimised at link time, stripped.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSymbol as _, read::elf::FileHeader as _};

use crate::{build, setup::Ready, shell};

const PROFILE: &str = "dist";

/// Builds the program in this target directory.
///
/// It links glibc statically, because rustup's stable toolchain comes with the standard library for that. musl would
/// need `rustup target add`, and only the user changes toolchains. A static glibc cannot resolve names or users, but
/// the program resolves none (`check_static`).
pub(super) fn build(ready: &Ready, target_dir: &Path) -> Result<PathBuf> {
    let target = host()?;
    let home = shell::cargo_home().context("neither CARGO_HOME nor HOME is set")?;
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is not in a workspace")?;
    let mut cargo = ready.cargo("build");
    cargo.args(["--profile", PROFILE, "--package", "pidns-user", "--bin", "pidns-trace", "--locked"]);
    // With a named target, the flags apply to the program and not to build scripts and macros.
    cargo.args(["--target", &target, "--target-dir"]).arg(target_dir);
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        // Panic messages contain file names.
        format!("--remap-path-prefix={}=.", workspace.display()),
        format!("--remap-path-prefix={}=/cargo", home.display()),
    ];
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    cargo.env("CFLAGS", format!("-ffile-prefix-map={}=/cargo", home.display()));
    shell::run(&mut cargo)?;
    build::check_objects(target_dir)?;
    let program = target_dir.join(&target).join(PROFILE).join("pidns-trace");
    check_static(&program)?;
    Ok(program)
}

/// The target triple of this machine.
fn host() -> Result<String> {
    let verbose = shell::ask(shell::command("rustc").arg("-vV")).context("`rustc -vV` fails")?;
    let host = verbose.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("`rustc -vV` names no host")?;
    if !host.ends_with("-linux-gnu") {
        bail!("packages need a compiler for glibc, but this one is for {host}");
    }
    Ok(host.to_owned())
}

/// Fails if the program needs a loader or a library, still has symbols, or contains a directory of the build machine.
pub(super) fn check_static(program: &Path) -> Result<()> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let faults = faults(&bytes)?;
    if !faults.is_empty() {
        bail!("{}: {}", program.display(), faults.join("; "));
    }
    Ok(())
}

fn faults(bytes: &[u8]) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let header = object::elf::FileHeader64::<object::Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, bytes)?;
    if segments.iter().any(|segment| segment.p_type.get(endian) == object::elf::PT_INTERP) {
        faults.push("it needs a loader".to_owned());
    }
    let file = object::File::parse(bytes)?;
    faults.extend(
        file.imports()?
            .iter()
            .map(|import| format!("it needs {} from a library", String::from_utf8_lossy(import.name()))),
    );
    if let Some(symbol) = file.symbols().find(|symbol| !symbol.name_bytes().unwrap_or_default().is_empty()) {
        faults.push(format!("it is not stripped: {}", String::from_utf8_lossy(symbol.name_bytes()?)));
    }
    if let Some(home) = shell::cargo_home() {
        let home = home.join("registry");
        let home = home.as_os_str().as_encoded_bytes();
        if bytes.windows(home.len()).any(|window| window == home) {
            faults.push("it contains the directory of cargo's registry".to_owned());
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_needs_libraries_and_has_symbols_is_refused() {
        let this = fs::read(std::env::current_exe().expect("a test program")).expect("read the test program");
        let faults = faults(&this).expect("an ELF file").join("; ");
        assert!(faults.contains("it needs a loader"), "{faults}");
        assert!(faults.contains("from a library"), "{faults}");
        assert!(faults.contains("it is not stripped"), "{faults}");
    }
}
