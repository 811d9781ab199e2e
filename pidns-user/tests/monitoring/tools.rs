//! Programs that the tests take from Debian's packages.

use std::env;
use std::path::PathBuf;

/// A program on PATH, or where root has programs and others often not.
pub(crate) fn needed(program: &str, package: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file()).unwrap_or_else(|| {
        panic!("{program} is not there: `cargo xtask setup` installs it (Debian's package {package})")
    })
}
