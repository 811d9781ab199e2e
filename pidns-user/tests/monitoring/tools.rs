//! Finds the programs from Debian's packages that the tests need.

use std::env;
use std::path::PathBuf;

/// A program on PATH, or in the directories that often only root has on PATH.
pub(crate) fn needed(program: &str, package: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file()).unwrap_or_else(|| {
        panic!("{program} is not installed: `cargo xtask setup` installs it (Debian's package {package})")
    })
}
