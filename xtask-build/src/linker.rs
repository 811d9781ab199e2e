//! Checks that bpf-linker is installed and reads what the compiler writes.

use std::{fmt, fs, path::Path, process::Command};

use object::{Object as _, ObjectSection as _};

use crate::{shell, version::Version};

/// The LLVM version of the bpf-linker that setup installs. Debian's rustc has the same.
pub(crate) const LLVM: u32 = 22;

/// The version of bpf-linker that setup installs.
const INSTALLED: &str = "0.13.0";

/// The oldest version that links the object.
const MINIMUM: Version = Version::new(0, 13, 0);

/// A bpf-linker that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linker {
    pub(crate) version: Version,
    /// The major version of its LLVM. `None` if it is linked statically.
    pub(crate) llvm: Option<u32>,
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bpf-linker {}", self.version)
    }
}

impl Linker {
    /// The bpf-linker on the search path. `None` if there is none, or if it does not run.
    pub(crate) fn find() -> Option<Self> {
        let file = shell::find("bpf-linker")?;
        let version = parse_version(&shell::ask(Command::new(&file).arg("--version"))?)?;
        Some(Self { version, llvm: llvm_of(&file) })
    }

    /// Whether it can link the output of a compiler with this LLVM. LLVM reads only bitcode of its own or an older
    /// version.
    pub(crate) fn reads(&self, compiler: Version) -> bool {
        self.version >= MINIMUM && self.llvm.is_none_or(|llvm| llvm >= compiler.major)
    }
}

/// Installs bpf-linker against Debian's LLVM.
pub(crate) fn install() -> Command {
    let prefix = format!("/usr/lib/llvm-{LLVM}");
    let mut cargo = shell::command("cargo");
    cargo
        .args(["install", "bpf-linker", "--version", INSTALLED, "--locked"])
        // By default it takes a newer LLVM than Debian's.
        .args(["--no-default-features", "--features", &format!("llvm-{LLVM}")])
        .env(format!("LLVM_SYS_{LLVM}1_PREFIX"), &prefix)
        .env("LLVM_PREFIX", &prefix)
        .env("PATH", shell::path_with(&format!("{prefix}/bin")));
    if shell::cargo_bin().is_some_and(|bin| bin.join("bpf-linker").exists()) {
        // The installed one is too old or does not run, but cargo would call it installed.
        cargo.arg("--force");
    }
    cargo
}

fn parse_version(output: &str) -> Option<Version> {
    Version::parse(output.trim().strip_prefix("bpf-linker")?.trim_start())
}

/// The LLVM that the program loads. No option prints it, but the names of its libraries contain it.
fn llvm_of(program: &Path) -> Option<u32> {
    let bytes = fs::read(program).ok()?;
    let file = object::File::parse(&*bytes).ok()?;
    let names = file.section_by_name(".dynstr")?.data().ok()?;
    names.split(|byte| *byte == 0).find_map(|name| llvm_of_library(str::from_utf8(name).ok()?))
}

/// `libLLVM.so.22.1`, `libLLVM-19.so`, `libLLVM.so.22.1-rust-1.95.0-stable`.
fn llvm_of_library(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("libLLVM")?;
    Some(Version::parse(rest.trim_start_matches(|c: char| !c.is_ascii_digit()))?.major)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn linker(version: &str, llvm: Option<u32>) -> Linker {
        Linker { version: Version::parse(version).expect("a version"), llvm }
    }

    #[test]
    fn a_linker_reads_bitcode_up_to_its_own_llvm() {
        let rustc = Version::new(22, 1, 8);
        assert!(linker("0.13.0", Some(22)).reads(rustc));
        assert!(linker("0.14.1", Some(23)).reads(rustc));
        assert!(!linker("0.13.0", Some(21)).reads(rustc));
    }

    #[test]
    fn a_linker_with_an_unknown_llvm_is_accepted() {
        assert!(linker("0.13.0", None).reads(Version::new(22, 1, 8)));
    }

    #[test]
    fn an_old_linker_is_refused_even_with_a_new_llvm() {
        assert!(!linker("0.12.9", Some(23)).reads(Version::new(22, 1, 8)));
    }

    #[test]
    fn the_version_is_read_from_its_output() {
        assert_eq!(parse_version("bpf-linker 0.13.0\n"), Some(Version::new(0, 13, 0)));
        assert_eq!(parse_version("ld 2.40\n"), None);
    }

    #[test]
    fn the_llvm_version_is_read_from_a_librarys_name() {
        assert_eq!(llvm_of_library("libLLVM.so.22.1"), Some(22));
        assert_eq!(llvm_of_library("libLLVM-19.so"), Some(19));
        assert_eq!(llvm_of_library("libLLVM.so.22.1-rust-1.95.0-stable"), Some(22));
        assert_eq!(llvm_of_library("libc.so.6"), None);
        assert_eq!(llvm_of_library("libLLVM.so"), None);
    }
}
