//! Makes Debian 12 systems with debootstrap. Each is downloaded once, and copied for each test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::root::Root;
use crate::shell;

const RELEASE: &str = "bookworm";

/// The smallest Debian system. Made if it is missing.
pub(super) fn bare(folder: &Path) -> Result<PathBuf> {
    made(folder, "bare", |root| {
        let mut debootstrap = shell::command("debootstrap");
        shell::run(debootstrap.args(["--variant=minbase", RELEASE]).arg(root).arg(mirror()?))
    })
}

/// The bare system, with systemd to boot it.
pub(super) fn bootable(folder: &Path) -> Result<PathBuf> {
    let bare = bare(folder)?;
    made(folder, "bootable", |root| {
        copy(&bare, root)?;
        let root = Root(root.to_owned());
        root.run(&["apt-get", "update"])?;
        root.run(&["apt-get", "install", "-y", "--no-install-recommends", "systemd-sysv"])?;
        Ok(())
    })
}

/// The system with systemd, and with rpm.
pub(super) fn bootable_with_rpm(folder: &Path) -> Result<PathBuf> {
    let bootable = bootable(folder)?;
    made(folder, "bootable-rpm", |root| {
        copy(&bootable, root)?;
        let root = Root(root.to_owned());
        root.run(&["apt-get", "update"])?;
        root.run(&["apt-get", "install", "-y", "--no-install-recommends", "rpm"])?;
        Ok(())
    })
}

/// Makes the system under another name and renames it when it is complete.
fn made(folder: &Path, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let base = folder.join("debian").join(name);
    if !base.exists() {
        let unfinished = folder.join("debian").join(format!("{name}.unfinished"));
        remove(&unfinished)?;
        fs::create_dir_all(folder.join("debian")).context("cannot create a directory")?;
        make(&unfinished)?;
        fs::rename(&unfinished, &base).with_context(|| format!("cannot make {}", base.display()))?;
    }
    Ok(base)
}

/// Copies the system, and replaces an older copy.
pub(super) fn copy(base: &Path, to: &Path) -> Result<()> {
    remove(to)?;
    shell::run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(base).arg(to))
}

pub(super) fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// The mirror from which apt gets this release.
fn mirror() -> Result<String> {
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages"]);
    let targets = shell::ask(&mut apt).context("`apt-get indextargets` fails: is this a Debian?")?;
    mirror_of(&targets).with_context(|| format!("apt has no mirror for {RELEASE}"))
}

fn mirror_of(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let uri = words.next()?;
        (words.next() == Some(RELEASE) && words.next() == Some("main")).then(|| uri.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_with_the_main_component_of_the_release_is_taken() {
        let targets = "https://a.example/debian-security/ bookworm-security main\n\
                       https://b.example/debian/ bookworm contrib\nhttps://c.example/debian/ bookworm main\n";
        assert_eq!(mirror_of(targets).as_deref(), Some("https://c.example/debian/"));
        assert_eq!(mirror_of("https://a.example/debian/ trixie main\n"), None);
    }
}
