//! The program that is published: static, optimised at link time, stripped.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSymbol as _, read::elf::FileHeader as _};

use crate::{build, setup::Ready, shell};

const PROFILE: &str = "dist";

/// Builds it in this target folder.
///
/// It is linked with the C library's archive: rustup's stable toolchain has the standard library for that, and for musl only
/// through `rustup target add`, which is the user's to run. Nothing in it asks the resolver of names or users, which is
/// what a static glibc cannot do (`check_static`).
pub(super) fn build(ready: &Ready, target_dir: &Path) -> Result<PathBuf> {
    let target = host()?;
    let home = shell::cargo_home().context("neither CARGO_HOME nor HOME is set")?;
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is in no workspace")?;
    let mut cargo = ready.cargo("build");
    cargo.args(["--profile", PROFILE, "--package", "pidns-user", "--bin", "pidns-trace", "--locked"]);
    // A target that is named: the flags are for the program alone, and not for build scripts and macros.
    cargo.args(["--target", &target, "--target-dir"]).arg(target_dir);
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        // Messages of panics name files.
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

/// The target of this machine.
fn host() -> Result<String> {
    let verbose = shell::ask(shell::command("rustc").arg("-vV")).context("`rustc -vV` fails")?;
    let host = verbose.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("`rustc -vV` names no host")?;
    if !host.ends_with("-linux-gnu") {
        bail!("packages are made with a compiler for glibc, and not {host}");
    }
    Ok(host.to_owned())
}

/// Fails if the program takes a loader or a library, still has symbols, or names a folder of who built it.
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
        faults.push("it takes a loader".to_owned());
    }
    let file = object::File::parse(bytes)?;
    faults.extend(
        file.imports()?
            .iter()
            .map(|import| format!("it takes {} from a library", String::from_utf8_lossy(import.name()))),
    );
    if let Some(symbol) = file.symbols().find(|symbol| !symbol.name_bytes().unwrap_or_default().is_empty()) {
        faults.push(format!("it is not stripped: {}", String::from_utf8_lossy(symbol.name_bytes()?)));
    }
    if let Some(home) = shell::cargo_home() {
        let home = home.join("registry");
        let home = home.as_os_str().as_encoded_bytes();
        if bytes.windows(home.len()).any(|window| window == home) {
            faults.push("it names the folder of cargo's registry".to_owned());
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_takes_libraries_and_has_symbols_is_refused() {
        let this = fs::read(std::env::current_exe().expect("a test program")).expect("it can be read");
        let faults = faults(&this).expect("an ELF file").join("; ");
        assert!(faults.contains("it takes a loader"), "{faults}");
        assert!(faults.contains("from a library"), "{faults}");
        assert!(faults.contains("it is not stripped"), "{faults}");
    }
}
