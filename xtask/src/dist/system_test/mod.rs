//! `cargo xtask dist test`: installs and uses the packages and the image as users do.

mod booted;
mod debian;
mod installed;
mod judges;
mod root;
mod service;
mod upgraded_rpm;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{Source, packages, tools};
use crate::{
    program::PROGRAM_VAR,
    setup,
    shell::{self, Privilege},
};

/// Options of `dist test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only this part
    #[arg(long, value_enum)]
    only: Option<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// hadolint, lintian, systemd-analyze, and the .rpm in an empty directory
    Judges,
    /// The .deb in a Debian without systemd: install, use, upgrade, remove, purge
    Deb,
    /// The service in a Debian booted by systemd
    Service,
    /// The .rpm in a Debian booted by systemd: install, upgrade, remove
    Rpm,
    /// The program in its own container, next to containers of Docker, Podman and containerd
    Image,
}

pub(super) fn main(args: &Args, folder: &Path) -> Result<()> {
    if Privilege::here() != Privilege::Root {
        bail!("this mounts file systems and installs packages into a separate Debian: run it as root");
    }
    let ready = setup::ready_for_packages()?;
    let source = Source::read()?;
    let work = folder.join("work");
    let deb = existing(folder, "deb")?;
    let takes = |part: Part| args.only.is_none_or(|only| only == part);

    if takes(Part::Judges) {
        judges::hadolint()?;
        judges::lintian(&deb)?;
        judges::service(&work)?;
        judges::rpm(&existing(folder, "rpm")?, folder)?;
    }
    if takes(Part::Deb) || takes(Part::Service) {
        // The same program in a package with a higher version, for the upgrade.
        let newer = newer_folder(folder)?;
        let newer = packages::deb(
            &source,
            &tools::ready()?,
            &work,
            &newer,
            packages::FIRST + 1,
            packages::Packing::Fast,
        )?;
        if takes(Part::Deb) {
            installed::main(folder, &deb, &newer)?;
        }
        if takes(Part::Service) {
            service::main(folder, &existing(folder, "gz")?, &deb, &newer)?;
        }
    }
    if takes(Part::Rpm) {
        let newer = newer_folder(folder)?;
        let newer = packages::rpm(
            &source,
            &tools::ready()?,
            &work,
            &newer,
            packages::FIRST + 1,
            packages::Packing::Fast,
        )?;
        upgraded_rpm::main(folder, &existing(folder, "rpm")?, &newer)?;
    }
    if takes(Part::Image) {
        let mut cargo = ready.cargo("test");
        cargo.args(["--package", "pidns-user", "--test", "containers", "--", "image::"]);
        shell::run(cargo.env(PROGRAM_VAR, work.join("stage/pidns-trace")))?;
    }
    Ok(())
}

/// The directory of the packages with a higher version.
fn newer_folder(folder: &Path) -> Result<PathBuf> {
    let newer = folder.join("newer");
    fs::create_dir_all(&newer).with_context(|| format!("cannot create {}", newer.display()))?;
    Ok(newer)
}

/// The only package with this extension that `cargo xtask dist` has made.
fn existing(folder: &Path, extension: &str) -> Result<PathBuf> {
    let advice = || format!("no .{extension} in {}: run `cargo xtask dist` first", folder.display());
    let files = fs::read_dir(folder).with_context(advice)?;
    let mut found: Vec<PathBuf> = files
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => Ok(path),
        (Some(_), false) => bail!("several .{extension} in {}: remove the old ones", folder.display()),
        (None, _) => bail!("{}", advice()),
    }
}

/// Prints an observed result.
fn seen(what: &str) {
    eprintln!("seen: {what}");
}
