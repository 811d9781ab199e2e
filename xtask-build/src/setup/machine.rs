//! What is there, and what is missing for a purpose.

use std::path::Path;

use anyhow::{Result, bail};

use crate::{
    linker::Linker,
    packages::{self, Package},
    shell::{self, Privilege},
    toolchain::{self, Choice},
};

/// What the machine is set up for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Building and running.
    Build,
    /// That, and testing on this kernel: who only wants to run the tool needs no Docker and no Prometheus for it.
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

/// What setup found.
pub(super) struct Machine {
    /// Whether apt-get is there.
    pub(super) apt: bool,
    /// Whether systemd runs, and so starts what packages bring.
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
                "rustup is not on PATH. The eBPF object needs another toolchain than the rest, and it is rustup that \
                 switches between them.\n\
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
            // As sd_booted(3) does.
            systemd: Path::new("/run/systemd/system").exists(),
            privilege: Privilege::here(),
            choice,
            linker,
            missing,
        })
    }

    /// The packages of the group that are not there.
    pub(super) fn missing_of(&self, group: &'static [Package]) -> Vec<&'static Package> {
        group.iter().filter(|package| self.missing.contains(package)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_takes_the_groups_that_it_needs_and_no_others() {
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
