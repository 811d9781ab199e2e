//! The Debian packages that building and testing take.

use std::{fmt, path::Path, process::Command};

use anyhow::{Result, bail};

use crate::{shell, toolchain::DEBIAN_MINIMUM, version::Version};

/// A Debian package, and why it is needed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Package {
    name: &'static str,
    why: &'static str,
    present: Present,
    /// What systemd starts when the package is installed, and must not on a developer's machine.
    units: &'static [&'static str],
}

/// How to check that a package's content is there.
#[derive(Debug, PartialEq, Eq)]
enum Present {
    /// A program on PATH: wherever it comes from, it will do.
    Command(&'static str),
    /// A program that root has on PATH, and others often not.
    RootCommand(&'static str),
    File(&'static str),
    /// dpkg lists it, in a version that is not older than this: it has no file that is its alone.
    Dpkg {
        minimum: Version,
    },
}

/// The eBPF toolchain, where no nightly with sources is there. `-web` is Debian's name for the newer Rust that it
/// keeps beside a release's own, for building browsers.
pub(crate) const TOOLCHAIN: &[Package] = &[
    Package {
        name: "rustc-web",
        why: "compiles the eBPF object",
        present: Present::Dpkg { minimum: DEBIAN_MINIMUM },
        units: &[],
    },
    Package {
        name: "cargo-web",
        why: "is that compiler's cargo",
        present: Present::Dpkg { minimum: DEBIAN_MINIMUM },
        units: &[],
    },
    Package {
        name: "rust-web-src",
        why: "has the sources of core, which the object is built with",
        present: Present::Dpkg { minimum: DEBIAN_MINIMUM },
        units: &[],
    },
];

/// What bpf-linker is built with.
pub(crate) const LINKER: &[Package] = &[Package {
    name: "llvm-22-dev",
    why: "is the LLVM that bpf-linker is built with",
    present: Present::File("/usr/lib/llvm-22/bin/llvm-config"),
    units: &[],
}];

/// What the tests run.
pub(crate) const TESTS: &[Package] = &[Package {
    name: "util-linux",
    why: "has unshare and nsenter: tests make namespaces with them",
    present: Present::Command("nsenter"),
    units: &[],
}];

const BUSYBOX: Package = Package {
    name: "busybox-static",
    why: "is all that runs in the tests' containers, and the guests' first process",
    present: Present::Dpkg { minimum: Version::new(1, 30, 0) },
    units: &[],
};

/// What the tests run real containers with.
pub(crate) const CONTAINERS: &[Package] = &[
    BUSYBOX,
    Package {
        name: "runc",
        why: "runs the containers of the tests",
        present: Present::RootCommand("runc"),
        units: &[],
    },
    Package {
        name: "podman",
        why: "tests find the names of its containers",
        present: Present::Command("podman"),
        units: &[
            "podman.socket",
            "podman.service",
            "podman-restart.service",
            "podman-auto-update.timer",
            "podman-auto-update.service",
        ],
    },
    Package {
        name: "containerd",
        why: "tests find the names of its containers",
        present: Present::Command("ctr"),
        units: &["containerd.service"],
    },
    Package {
        name: "docker.io",
        why: "tests find the names of its containers",
        present: Present::RootCommand("dockerd"),
        units: &["docker.socket", "docker.service"],
    },
    Package {
        name: "lxc",
        why: "runs a container of the tests",
        present: Present::Command("lxc-start"),
        units: &["lxc.service", "lxc-net.service", "lxc-monitord.service"],
    },
    Package {
        name: "systemd-container",
        why: "has systemd-nspawn: tests find the names of its machines",
        present: Present::Command("systemd-nspawn"),
        units: &[],
    },
];

/// What dashboards, rules and alerts are tested with.
pub(crate) const DASHBOARDS: &[Package] = &[
    Package {
        name: "prometheus",
        why: "answers the dashboards' queries in tests, and has promtool, which checks rules and alerts",
        present: Present::Command("promtool"),
        units: &["prometheus.service"],
    },
    Package {
        name: "prometheus-alertmanager",
        why: "passes alerts of the tests on to a webhook of theirs",
        present: Present::Command("prometheus-alertmanager"),
        units: &["prometheus-alertmanager.service"],
    },
    Package {
        name: "iproute2",
        why: "has ip: tests make network namespaces, and links between them, with it",
        present: Present::RootCommand("ip"),
        units: &[],
    },
    Package {
        name: "nodejs",
        why: "runs the TypeScript compiler, which checks the dashboards against Grafana's types",
        present: Present::Command("node"),
        units: &[],
    },
    Package {
        name: "npm",
        why: "downloads that compiler and those types",
        present: Present::Command("npm"),
        units: &[],
    },
];

/// What `cargo xtask vm` puts into guests, and reads their kernels with. (qemu is not installed: vm/qemu.rs.)
pub(crate) const GUESTS: &[Package] = &[
    BUSYBOX,
    Package { name: "lz4", why: "decompresses older kernels", present: Present::Command("lz4"), units: &[] },
    Package {
        name: "zstd",
        why: "decompresses newer kernels",
        present: Present::Command("zstd"),
        units: &[],
    },
];

/// What packages of the program are checked and tried with.
pub(crate) const PACKAGES: &[Package] = &[
    Package {
        name: "debootstrap",
        why: "makes the Debian that the package is installed into",
        present: Present::RootCommand("debootstrap"),
        units: &[],
    },
    Package {
        name: "lintian",
        why: "finds faults of the Debian package",
        present: Present::Command("lintian"),
        units: &[],
    },
    Package {
        name: "rpm",
        why: "installs the RPM package into a folder",
        present: Present::Command("rpm"),
        units: &[],
    },
    Package {
        name: "systemd",
        why: "has systemd-analyze, which judges the service",
        present: Present::Command("systemd-analyze"),
        units: &[],
    },
];

impl Package {
    /// Whether the eBPF object is built with it: there are other ways to that than Debian's packages.
    pub(crate) fn is_for_the_object(&self) -> bool {
        TOOLCHAIN.contains(self) || LINKER.contains(self)
    }

    pub(crate) fn is_present(&self) -> bool {
        match self.present {
            Present::Command(program) => shell::find(program).is_some(),
            Present::RootCommand(program) => {
                let for_root = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(Path::new);
                shell::find(program).is_some() || for_root.iter().any(|folder| folder.join(program).exists())
            }
            Present::File(file) => Path::new(file).exists(),
            Present::Dpkg { minimum } => {
                let mut dpkg = Command::new("dpkg-query");
                dpkg.args(["--show", "--showformat=${db:Status-Status} ${Version}", self.name]);
                let installed = shell::ask(&mut dpkg).as_deref().and_then(installed_version);
                installed.is_some_and(|version| version >= minimum)
            }
        }
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.why)
    }
}

/// Reads the state and version that dpkg has of a package.
fn installed_version(state: &str) -> Option<Version> {
    upstream_version(state.strip_prefix("installed ")?)
}

/// The version proper of Debian's `epoch:version-revision`.
fn upstream_version(debian: &str) -> Option<Version> {
    Version::parse(debian.split_once(':').map_or(debian, |(_epoch, version)| version))
}

/// `apt-get update`: a fresh machine has no package lists.
pub(crate) fn update() -> Command {
    apt_get(&["update"])
}

/// Installs the packages. Those that are there but too old are brought up to date.
pub(crate) fn install(packages: &[&Package]) -> Command {
    // No package is worth losing another for: rustc-web conflicts with Debian's own rustc, cargo and rustup.
    let mut apt = apt_get(&["install", "-y", "--no-install-recommends", "--no-remove"]);
    apt.args(packages.iter().map(|package| package.name));
    apt
}

/// What keeps systemd from starting what the packages bring: before they are installed, since a daemon that has run leaves
/// bridges, rules of the firewall and settings of the kernel behind; then, whatever came of that, undone, and for good not
/// at boot. The tests start daemons of their own.
pub(crate) struct Stillness {
    /// Nothing of it can be started, until the machine is.
    pub(crate) before: Command,
    /// It can be again, and is not by itself.
    pub(crate) after: [Command; 2],
}

/// None where the packages start nothing.
pub(crate) fn keep_still(packages: &[&Package]) -> Option<Stillness> {
    let units: Vec<&str> = packages.iter().flat_map(|package| package.units).copied().collect();
    let systemctl = |args: &[&str]| {
        let mut systemctl = Command::new("systemctl");
        systemctl.args(args).args(&units);
        systemctl
    };
    (!units.is_empty()).then(|| Stillness {
        before: systemctl(&["mask", "--runtime"]),
        after: [systemctl(&["unmask", "--runtime"]), systemctl(&["disable"])],
    })
}

fn apt_get(args: &[&str]) -> Command {
    let mut apt = Command::new("apt-get");
    apt.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// Fails if this machine's Debian does not have the packages, or has them too old.
pub(crate) fn check_available(packages: &[&Package]) -> Result<()> {
    for package in packages {
        let mut apt = Command::new("apt-cache");
        let policy = shell::ask(apt.args(["policy", package.name]).env("LC_ALL", "C"));
        check(package, policy.as_deref().and_then(candidate_of))?;
    }
    Ok(())
}

/// The version that `apt-get install` would install.
fn candidate_of(policy: &str) -> Option<Version> {
    upstream_version(policy.lines().find_map(|line| line.trim_start().strip_prefix("Candidate:"))?.trim())
}

fn check(package: &Package, candidate: Option<Version>) -> Result<()> {
    let problem = match (candidate, &package.present) {
        (None, _) => "is in none of this machine's package sources".to_owned(),
        (Some(candidate), Present::Dpkg { minimum }) if candidate < *minimum => {
            format!("is version {candidate} here, and {minimum} or newer is needed")
        }
        _ => return Ok(()),
    };
    if !package.is_for_the_object() {
        bail!(
            "the package {package} {problem}.\n\
             Enable the component that has it (in /etc/apt/sources.list or /etc/apt/sources.list.d/), or install the \
             same program by other means. Then run this command again."
        )
    }
    bail!(
        "the package {package} {problem}.\n\
         Debian 12 has it in its security updates: see that bookworm-security is in /etc/apt/sources.list or\n\
         /etc/apt/sources.list.d/, and run this command again.\n\
         On another distribution, {OTHER_WAY}"
    )
}

/// What to do where Debian's packages are of no help.
pub(crate) const OTHER_WAY: &str = "give rustup a nightly toolchain with the sources of core:\n    \
    rustup toolchain install nightly --profile minimal --component rust-src\n\
    and install bpf-linker (its README explains how): `cargo install bpf-linker`, with an LLVM at least as new as\n\
    the one that `rustc +nightly -vV` names. Then run this command again.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_is_read_without_its_epoch() {
        let policy = "llvm-22-dev:\n  Installed: (none)\n  Candidate: 1:22.1.8-1~deb12u1\n  Version table:\n";
        assert_eq!(candidate_of(policy), Some(Version::new(22, 1, 8)));
    }

    #[test]
    fn a_package_counts_as_installed_only_while_it_is() {
        assert_eq!(installed_version("installed 1.96.0+dfsg1-1~deb12u2"), Some(Version::new(1, 96, 0)));
        assert_eq!(installed_version("config-files 1.96.0+dfsg1-1~deb12u2"), None);
        assert_eq!(installed_version("not-installed "), None);
    }

    #[test]
    fn a_package_that_apt_does_not_know_has_no_candidate() {
        assert_eq!(candidate_of(""), None);
        assert_eq!(candidate_of("rustc-web:\n  Installed: (none)\n  Candidate: (none)\n"), None);
    }

    #[test]
    fn a_rustc_from_before_the_security_update_is_refused() {
        let rustc = &TOOLCHAIN[0];
        let error = check(rustc, Some(Version::new(1, 85, 0))).expect_err("1.85 is too old");
        assert!(error.to_string().contains("1.96.0 or newer"), "{error}");
        assert!(error.to_string().contains("bookworm-security"), "{error}");
        check(rustc, Some(Version::new(1, 96, 0))).expect("1.96 is enough");
    }

    #[test]
    fn a_package_that_is_nowhere_is_named_with_another_way() {
        let error = check(&LINKER[0], None).expect_err("not available");
        assert!(error.to_string().contains("llvm-22-dev"), "{error}");
        assert!(error.to_string().contains("--component rust-src"), "{error}");
    }

    #[test]
    fn a_missing_package_that_is_no_compiler_gets_no_compiler_hint() {
        for package in CONTAINERS.iter().chain(DASHBOARDS).chain(GUESTS).chain(PACKAGES).chain(TESTS) {
            let error = check(package, None).expect_err("not available").to_string();
            assert!(error.contains(package.name) && error.contains("by other means"), "{error}");
            assert!(!error.contains("nightly") && !error.contains("bookworm"), "{error}");
        }
    }

    #[test]
    fn nothing_is_removed_to_make_room() {
        let command = shell::describe(&install(&[&TOOLCHAIN[0], &LINKER[0]]));
        assert!(command.contains("--no-remove rustc-web llvm-22-dev"), "{command}");
    }
}
