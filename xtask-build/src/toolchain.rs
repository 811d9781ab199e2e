//! Chooses the Rust toolchain that builds the eBPF object.
//!
//! The object is built with `-Z build-std=core`. That needs the sources of `core` and a compiler that accepts `-Z`. A
//! nightly with the component rust-src has both. Debian's rustc works too: it is stable, so the build script of
//! pidns-user sets `RUSTC_BOOTSTRAP`. It is linked into rustup under its own name, because the build script gets it
//! from rustup. Neither is downloaded through rustup: the user chooses which toolchains the machine has.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{linker, linker::Linker, shell, version::Version};

/// Names the toolchain to use, which skips the search. The build script of pidns-user reads it too.
pub(crate) const TOOLCHAIN_VAR: &str = "PIDNS_BPF_TOOLCHAIN";

/// rustup's name for Debian's toolchain.
pub(crate) const DEBIAN_TOOLCHAIN: &str = "pidns-bpf";

/// The sysroot of Debian's toolchain.
pub(crate) const DEBIAN_SYSROOT: &str = "/usr";

/// The oldest Debian rustc that builds the object. Bookworm has 1.85, its security updates 1.96.
pub(crate) const DEBIAN_MINIMUM: Version = Version::new(1, 96, 0);

/// A toolchain that rustup can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// rustup's name for it.
    pub(crate) name: String,
    pub(crate) rustc: Rustc,
    /// Whether it has the sources of `core`.
    pub(crate) has_sources: bool,
}

/// The relevant part of `rustc -vV`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rustc {
    /// As printed, with its channel.
    pub(crate) release: String,
    pub(crate) version: Version,
    pub(crate) llvm: Version,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (rustc {}, LLVM {})", self.name, self.rustc.release, self.rustc.llvm)
    }
}

impl Rustc {
    fn parse(verbose: &str) -> Option<Self> {
        let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let release = field("release:")?;
        Some(Self {
            release: release.to_owned(),
            version: Version::parse(release)?,
            llvm: Version::parse(field("LLVM version:")?)?,
        })
    }
}

/// Asks rustup for a toolchain. `None` if rustup has no such toolchain, or if its compiler does not run.
pub(crate) fn probe(name: &str) -> Option<Toolchain> {
    let rustc = |args: &[&str]| {
        // Use `rustup run` and not `rustc +NAME`: the build script does the same, and the rustc on PATH may not be
        // rustup's.
        let mut rustup = shell::command("rustup");
        rustup.args(["run", name, "rustc"]).args(args).env("RUSTUP_AUTO_INSTALL", "0");
        shell::ask(&mut rustup)
    };
    let sysroot = PathBuf::from(rustc(&["--print", "sysroot"])?.trim_end());
    Some(Toolchain {
        name: name.to_owned(),
        rustc: Rustc::parse(&rustc(&["-vV"])?)?,
        has_sources: has_sources(&sysroot),
    })
}

fn has_sources(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core").is_dir()
}

/// Adds Debian's toolchain to rustup.
pub(crate) fn link_debian() -> Command {
    let mut rustup = shell::command("rustup");
    rustup.args(["toolchain", "link", DEBIAN_TOOLCHAIN, DEBIAN_SYSROOT]);
    rustup
}

/// The toolchain that `PIDNS_BPF_TOOLCHAIN` names.
pub(crate) fn asked_for() -> Result<Option<String>> {
    match env::var(TOOLCHAIN_VAR) {
        Ok(name) if name.is_empty() => Ok(None),
        Ok(name) => Ok(Some(name)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(error) => bail!("{TOOLCHAIN_VAR} is not the name of a toolchain: {error}"),
    }
}

/// The result of the search.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// This toolchain builds the object.
    Use(Toolchain),
    /// No toolchain builds it yet: Debian's must be installed, upgraded or linked. `why` says why the nightly is not
    /// used.
    SetUpDebian { why: String },
}

/// Chooses among the installed toolchains.
pub(crate) fn choose(
    asked_for: Option<&str>,
    linker: Option<&Linker>,
    probe: impl Fn(&str) -> Option<Toolchain>,
) -> Result<Choice> {
    let why = match asked_for {
        Some(DEBIAN_TOOLCHAIN) => format!("{TOOLCHAIN_VAR} selects it"),
        Some(name) => match nightly(name, linker, &probe) {
            Ok(toolchain) => return Ok(Choice::Use(toolchain)),
            Err(why) => bail!(
                "{TOOLCHAIN_VAR} selects the toolchain {name}, but {why}.\n\
                 Add what it lacks (sources: `rustup component add rust-src --toolchain {name}`), \
                 or unset {TOOLCHAIN_VAR}."
            ),
        },
        None => match nightly("nightly", linker, &probe) {
            Ok(toolchain) => return Ok(Choice::Use(toolchain)),
            Err(why) => why,
        },
    };
    Ok(match probe(DEBIAN_TOOLCHAIN) {
        Some(debian) if debian.has_sources && debian.rustc.version >= DEBIAN_MINIMUM => Choice::Use(debian),
        _ => Choice::SetUpDebian { why },
    })
}

/// The named toolchain if it can build the object, else the reason why it cannot.
fn nightly(
    name: &str,
    linker: Option<&Linker>,
    probe: impl Fn(&str) -> Option<Toolchain>,
) -> Result<Toolchain, String> {
    let toolchain = probe(name).ok_or_else(|| format!("rustup has no toolchain {name}"))?;
    if !toolchain.has_sources {
        return Err(format!("the toolchain {name} lacks the component rust-src"));
    }
    let llvm = toolchain.rustc.llvm;
    if llvm.major > linker::LLVM && !linker.is_some_and(|linker| linker.reads(llvm)) {
        return Err(format!(
            "the toolchain {name} writes LLVM {llvm} and setup can install bpf-linker for LLVM {} only",
            linker::LLVM
        ));
    }
    Ok(toolchain)
}

/// Whether the build script of pidns-user would choose the same toolchain by itself. It does not check LLVM's
/// version.
pub(crate) fn is_default(name: &str, probe: impl Fn(&str) -> Option<Toolchain>) -> bool {
    let has_sources = |name: &&str| probe(name).is_some_and(|toolchain| toolchain.has_sources);
    ["nightly", DEBIAN_TOOLCHAIN].into_iter().find(has_sources) == Some(name)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A toolchain with sources.
    pub(crate) fn toolchain(name: &str, release: &str, llvm: &str) -> Toolchain {
        let verbose = format!("rustc {release}\nbinary: rustc\nrelease: {release}\nLLVM version: {llvm}\n");
        let rustc = Rustc::parse(&verbose).expect("the shape of rustc -vV");
        Toolchain { name: name.to_owned(), rustc, has_sources: true }
    }

    fn bare(toolchain: Toolchain) -> Toolchain {
        Toolchain { has_sources: false, ..toolchain }
    }

    fn choose_among(asked_for: Option<&str>, there: &[Toolchain]) -> Result<Choice> {
        choose(asked_for, None, |name| there.iter().find(|toolchain| toolchain.name == name).cloned())
    }

    #[test]
    fn a_nightly_with_sources_comes_first() {
        let nightly = toolchain("nightly", "1.97.0-nightly", "22.1.4");
        let debian = toolchain("pidns-bpf", "1.96.0", "22.1.8");
        let choice = choose_among(None, &[nightly.clone(), debian]).expect("both can build the object");
        assert_eq!(choice, Choice::Use(nightly));
    }

    #[test]
    fn debians_toolchain_replaces_a_nightly_without_sources() {
        let nightly = bare(toolchain("nightly", "1.97.0-nightly", "22.1.4"));
        let debian = toolchain("pidns-bpf", "1.96.0", "22.1.8");
        let choice = choose_among(None, &[nightly, debian.clone()]).expect("Debian's can build the object");
        assert_eq!(choice, Choice::Use(debian));
    }

    #[test]
    fn debians_toolchain_replaces_a_nightly_newer_than_the_linkers_llvm() {
        let nightly = toolchain("nightly", "1.99.0-nightly", "23.1.0");
        let debian = toolchain("pidns-bpf", "1.96.0", "22.1.8");
        let choice = choose_among(None, &[nightly, debian.clone()]).expect("Debian's can build the object");
        assert_eq!(choice, Choice::Use(debian));
    }

    #[test]
    fn a_nightly_that_the_installed_linker_reads_is_used_however_new() {
        let nightly = toolchain("nightly", "1.99.0-nightly", "23.1.0");
        let linker = linker::tests::linker("0.13.0", Some(23));
        let choice = choose(None, Some(&linker), |name| (name == "nightly").then(|| nightly.clone()));
        assert_eq!(choice.expect("the linker reads it"), Choice::Use(nightly));
    }

    #[test]
    fn debians_toolchain_is_set_up_if_it_is_missing_or_old() {
        let old = toolchain("pidns-bpf", "1.85.0", "19.1.7");
        for there in [vec![], vec![old], vec![bare(toolchain("pidns-bpf", "1.96.0", "22.1.8"))]] {
            let choice = choose_among(None, &there).expect("Debian's can be set up");
            assert_eq!(choice, Choice::SetUpDebian { why: "rustup has no toolchain nightly".to_owned() });
        }
    }

    #[test]
    fn a_selected_toolchain_is_never_replaced() {
        let named = bare(toolchain("mine", "1.97.0-nightly", "22.1.4"));
        let debian = toolchain("pidns-bpf", "1.96.0", "22.1.8");
        let error = choose_among(Some("mine"), &[named, debian]).expect_err("it has no sources");
        assert!(error.to_string().contains("--toolchain mine"), "{error}");
    }

    #[test]
    fn debians_toolchain_can_be_selected() {
        let nightly = toolchain("nightly", "1.97.0-nightly", "22.1.4");
        let choice = choose_among(Some("pidns-bpf"), &[nightly]).expect("Debian's can be set up");
        assert!(matches!(choice, Choice::SetUpDebian { .. }), "{choice:?}");
    }

    #[test]
    fn the_build_script_is_told_only_a_toolchain_that_it_would_not_choose() {
        let nightly = toolchain("nightly", "1.99.0-nightly", "23.1.0");
        let there = |nightly: Toolchain| move |name: &str| (name == "nightly").then(|| nightly.clone());
        assert!(is_default("nightly", there(nightly.clone())));
        assert!(!is_default("pidns-bpf", there(nightly)));

        let debian = toolchain("pidns-bpf", "1.96.0", "22.1.8");
        assert!(is_default("pidns-bpf", |name| (name == "pidns-bpf").then(|| debian.clone())));
    }

    #[test]
    fn a_compiler_without_an_llvm_version_is_refused() {
        assert_eq!(Rustc::parse("rustc 1.96.0\nrelease: 1.96.0\n"), None);
    }

    #[test]
    fn the_summary_names_compiler_and_llvm() {
        let debian = toolchain("pidns-bpf", "1.96.0", "22.1.8");
        assert_eq!(debian.to_string(), "pidns-bpf (rustc 1.96.0, LLVM 22.1.8)");
    }
}
