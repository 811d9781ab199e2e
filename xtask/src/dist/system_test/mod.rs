//! `cargo xtask dist test`: what people do with the packages and the image, done for real.

mod debian;
mod installed;
mod judges;
mod root;
mod service;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{Source, packages, tools};
use crate::{
    setup,
    shell::{self, Privilege},
    test::PROGRAM_VAR,
};

/// Options of `dist test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this part
    #[arg(long, value_enum)]
    only: Option<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// lintian, systemd-analyze, rpm
    Judges,
    /// The .deb in a Debian without systemd: install, use, upgrade, remove, purge
    Deb,
    /// The service in a Debian that systemd has booted
    Service,
    /// The program in a container of its own, beside Docker's, Podman's and containerd's
    Image,
}

pub(super) fn main(args: &Args, folder: &Path) -> Result<()> {
    if Privilege::here() != Privilege::Root {
        bail!("this installs packages into a Debian of its own and mounts: run it as root");
    }
    let ready = setup::ready_for_packages()?;
    let source = Source::read()?;
    let work = folder.join("work");
    let deb = existing(folder, "deb")?;
    let takes = |part: Part| args.only.is_none_or(|only| only == part);

    if takes(Part::Judges) {
        judges::lintian(&deb)?;
        judges::service(&work)?;
        judges::rpm(&existing(folder, "rpm")?, folder)?;
    }
    if takes(Part::Deb) || takes(Part::Service) {
        // The same program in a package that apt takes for newer.
        let newer = folder.join("newer");
        fs::create_dir_all(&newer).with_context(|| format!("cannot make {}", newer.display()))?;
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
            service::main(folder, &deb, &newer)?;
        }
    }
    if takes(Part::Image) {
        let mut cargo = ready.cargo("test");
        cargo.args(["--package", "pidns-user", "--test", "containers", "--", "image::"]);
        shell::run(cargo.env(PROGRAM_VAR, work.join("stage/pidns-trace")))?;
    }
    Ok(())
}

/// The one package of this kind that `cargo xtask dist` has left.
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

/// Says what was seen.
fn seen(what: &str) {
    eprintln!("seen: {what}");
}
