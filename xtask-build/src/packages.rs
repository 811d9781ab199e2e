//! The Debian packages that building and testing need.

use std::{fmt, path::Path, process::Command};

use anyhow::{Result, bail};

use crate::{shell, toolchain::DEBIAN_MINIMUM, version::Version};

/// A Debian package, and why it is needed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Package {
    name: &'static str,
    why: &'static str,
    present: Present,
    /// The units that systemd starts when the package is installed. They must not run on a developer's machine.
    units: &'static [&'static str],
}

/// How to check that a package is installed.
#[derive(Debug, PartialEq, Eq)]
enum Present {
    /// A program on PATH, from whatever source.
    Command(&'static str),
    /// A program that is on root's PATH, and often not on others'.
    RootCommand(&'static str),
    File(&'static str),
    /// A package without a file of its own. dpkg must list it in this version or a newer one.
    Dpkg {
        minimum: Version,
    },
}

/// The eBPF toolchain, for machines without a nightly that has the sources of core. Packages with `-web` hold a newer
/// Rust than the Debian release; Debian builds browsers with them.
pub(crate) const TOOLCHAIN: &[Package] = &[
    Package {
        name: "rustc-web",
        why: "compiles the eBPF object",
        present: Present::Dpkg { minimum: DEBIAN_MINIMUM },
        units: &[],
    },
    Package {
        name: "cargo-web",
        why: "is the cargo of that compiler",
        present: Present::Dpkg { minimum: DEBIAN_MINIMUM },
        units: &[],
    },
    Package {
        name: "rust-web-src",
        why: "has the sources of core, which the object is built from",
        present: Present::Dpkg { minimum: DEBIAN_MINIMUM },
        units: &[],
    },
];

/// Packages that bpf-linker is built with.
pub(crate) const LINKER: &[Package] = &[Package {
    name: "llvm-22-dev",
    why: "is the LLVM that bpf-linker is built with",
    present: Present::File("/usr/lib/llvm-22/bin/llvm-config"),
    units: &[],
}];

/// Programs that the tests run.
pub(crate) const TESTS: &[Package] = &[Package {
    name: "util-linux",
    why: "has unshare and nsenter: tests make namespaces with them",
    present: Present::Command("nsenter"),
    units: &[],
}];

const BUSYBOX: Package = Package {
    name: "busybox-static",
    why: "is the only program in the tests' containers, and the guests' first process",
    present: Present::Dpkg { minimum: Version::new(1, 30, 0) },
    units: &[],
};

/// python3-venv has no file whose path is the same for all versions of Python.
const PYTHON: Package = Package {
    name: "python3-venv",
    why: "installs checkers from PyPI in the target directory: kubernetes-validate, hadolint",
    present: Present::Dpkg { minimum: Version::new(3, 9, 0) },
    units: &[],
};

/// Container runtimes that the tests run.
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
        name: "uidmap",
        why: "has newuidmap: tests run Podman as another user",
        present: Present::Command("newuidmap"),
        units: &[],
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

/// Programs that test dashboards, rules, alerts and manifests.
pub(crate) const DASHBOARDS: &[Package] = &[
    Package {
        name: "prometheus",
        why: "answers the dashboards' queries in tests, and has promtool, which checks rules and alerts",
        present: Present::Command("promtool"),
        units: &["prometheus.service"],
    },
    Package {
        name: "prometheus-alertmanager",
        why: "sends the tests' alerts to the tests' own webhook",
        present: Present::Command("prometheus-alertmanager"),
        units: &["prometheus-alertmanager.service"],
    },
    Package {
        name: "victoria-metrics",
        why: "stores the metrics of many machines in tests, and has vmalert, which evaluates rules on them",
        present: Present::Command("vmalert"),
        units: &["victoria-metrics.service"],
    },
    Package {
        name: "iproute2",
        why: "has ip: tests create network namespaces and links between them with it",
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
    PYTHON,
];

/// Packages that `cargo xtask vm` puts into guests, or reads guest kernels with. qemu is not installed: see
/// vm/qemu.rs.
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

/// Programs that check and try the packages of pidns-trace.
pub(crate) const PACKAGES: &[Package] = &[
    Package {
        name: "debootstrap",
        why: "makes the Debian system that the package is installed into",
        present: Present::RootCommand("debootstrap"),
        units: &[],
    },
    Package {
        name: "lintian",
        why: "checks the Debian package for faults",
        present: Present::Command("lintian"),
        units: &[],
    },
    Package {
        name: "rpm",
        why: "installs the RPM package into a directory",
        present: Present::Command("rpm"),
        units: &[],
    },
    Package {
        name: "systemd",
        why: "has systemd-analyze, which checks the service",
        present: Present::Command("systemd-analyze"),
        units: &[],
    },
    PYTHON,
];

impl Package {
    /// Whether the package is needed to build the eBPF object. Debian's packages are not the only way to do that.
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

/// Reads dpkg's state and version of a package.
fn installed_version(state: &str) -> Option<Version> {
    upstream_version(state.strip_prefix("installed ")?)
}

/// The upstream version of Debian's `epoch:version-revision`.
fn upstream_version(debian: &str) -> Option<Version> {
    Version::parse(debian.split_once(':').map_or(debian, |(_epoch, version)| version))
}

/// `apt-get update`, because a fresh machine has no package lists.
pub(crate) fn update() -> Command {
    apt_get(&["update"])
}

/// Installs the packages. Outdated packages are upgraded.
pub(crate) fn install(packages: &[&Package]) -> Command {
    // Do not remove a package to install another: rustc-web conflicts with Debian's own rustc, cargo and rustup.
    let mut apt = apt_get(&["install", "-y", "--no-install-recommends", "--no-remove"]);
    apt.args(packages.iter().map(|package| package.name));
    apt
}

/// Keeps systemd from starting the services of the packages. The units are masked before the installation, because a
/// daemon that has run leaves bridges, firewall rules and kernel settings behind. Afterwards, even if the
/// installation failed, they are unmasked and disabled at boot. The tests start their own daemons.
pub(crate) struct ServiceMask {
    /// Masks the units until the next boot.
    pub(crate) before: Command,
    /// Unmasks the units, and disables them.
    pub(crate) after: [Command; 2],
}

/// `None` if the packages start nothing.
pub(crate) fn keep_still(packages: &[&Package]) -> Option<ServiceMask> {
    let units: Vec<&str> = packages.iter().flat_map(|package| package.units).copied().collect();
    let systemctl = |args: &[&str]| {
        let mut systemctl = Command::new("systemctl");
        systemctl.args(args).args(&units);
        systemctl
    };
    (!units.is_empty()).then(|| ServiceMask {
        before: systemctl(&["mask", "--runtime"]),
        after: [systemctl(&["unmask", "--runtime"]), systemctl(&["disable"])],
    })
}

fn apt_get(args: &[&str]) -> Command {
    let mut apt = Command::new("apt-get");
    apt.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// Fails if this machine's Debian lacks one of the packages, or has it in too old a version.
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

/// Advice for machines that Debian's packages do not help.
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
    fn an_unavailable_package_is_named_with_an_alternative() {
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
