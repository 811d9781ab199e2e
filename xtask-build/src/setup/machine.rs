//! Inspects the machine, and lists the packages that are missing for a purpose.

use std::path::Path;

use anyhow::{Result, bail};

use crate::{
    linker::Linker,
    packages::{self, Package},
    shell::{self, Privilege},
    toolchain::{self, Choice},
};

/// The purpose of the set-up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Building and running.
    Build,
    /// Building, and testing on this kernel. It is separate from `Build`, so that running the tool needs no Docker
    /// and no Prometheus.
    Tests,
    /// Building, and testing on other kernels.
    Guests,
    /// Building, and trying packages.
    Packages,
    /// All that a developer may need.
    Everything,
}

impl Purpose {
    fn packages(self) -> impl Iterator<Item = &'static Package> {
        let takes = |group: &'static [Package], purposes: &[Self]| {
            let is_taken = self == Self::Everything || purposes.contains(&self);
            if is_taken { group } else { &[] }
        };
        [
            packages::TOOLCHAIN,
            packages::LINKER,
            packages::TESTS,
            takes(packages::CONTAINERS, &[Self::Tests, Self::Packages]),
            takes(packages::DASHBOARDS, &[Self::Tests]),
            takes(packages::GUESTS, &[Self::Guests]),
            takes(packages::PACKAGES, &[Self::Packages]),
        ]
        .into_iter()
        .flatten()
    }
}

/// The state of the machine.
pub(super) struct Machine {
    /// Whether apt-get is installed.
    pub(super) apt: bool,
    /// Whether systemd runs, and so starts the services of packages.
    pub(super) systemd: bool,
    pub(super) privilege: Privilege,
    pub(super) choice: Choice,
    pub(super) linker: Option<Linker>,
    pub(super) missing: Vec<&'static Package>,
}

impl Machine {
    pub(super) fn inspect(purpose: Purpose) -> Result<Self> {
        if shell::find("rustup").is_none() {
            bail!(
                "rustup is not on PATH. The eBPF object needs another toolchain than the rest, and rustup switches \
                 between them.\n\
                 Install it (https://rustup.rs explains how; Debian's package rustup conflicts with rustc-web), open a new \
                 shell, and run this command again."
            );
        }
        let linker = Linker::find();
        let asked_for = toolchain::asked_for()?;
        let choice = toolchain::choose(asked_for.as_deref(), linker.as_ref(), toolchain::probe)?;
        let missing = purpose.packages().filter(|package| !package.is_present()).collect();
        Ok(Self {
            apt: shell::find("apt-get").is_some(),
            // sd_booted(3) checks the same.
            systemd: Path::new("/run/systemd/system").exists(),
            privilege: Privilege::here(),
            choice,
            linker,
            missing,
        })
    }

    /// The packages of the group that are not installed.
    pub(super) fn missing_of(&self, group: &'static [Package]) -> Vec<&'static Package> {
        group.iter().filter(|package| self.missing.contains(package)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_purpose_needs_its_own_groups_of_packages() {
        let has = |purpose: Purpose, group: &[Package]| {
            group.iter().all(|one| purpose.packages().any(|package| package == one))
        };
        let purposes =
            [Purpose::Build, Purpose::Tests, Purpose::Guests, Purpose::Packages, Purpose::Everything];
        let takers = |group: &[Package]| purposes.map(|purpose| has(purpose, group));
        assert_eq!(takers(packages::CONTAINERS), [false, true, false, true, true]);
        assert_eq!(takers(packages::DASHBOARDS), [false, true, false, false, true]);
        assert_eq!(takers(packages::GUESTS), [false, false, true, false, true]);
        assert_eq!(takers(packages::PACKAGES), [false, false, false, true, true]);
    }
}
