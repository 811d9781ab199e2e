//! The qemu that guests run in: the machine's own, or else Debian's, unpacked into a folder of ours.
//!
//! It is not installed, since its packages may not go with what is there, and none is worth losing another for: that of
//! Debian 12 breaks the qemu-utils of its backports. Nor does it take root so.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::archive::Lists;
use crate::shell;

/// The program.
const PROGRAM: &str = "qemu-system-x86_64";
/// Debian's package of it.
const PACKAGE: &str = "qemu-system-x86";

/// A qemu that runs.
pub(super) struct Qemu {
    /// Where its packages were unpacked, if they were.
    root: Option<PathBuf>,
}

impl Qemu {
    /// The machine's own, the one that was unpacked before, or a new one.
    pub(super) fn find_or_unpack(cache: &Path) -> Result<Self> {
        if shell::find(PROGRAM).is_some() {
            return Ok(Self { root: None });
        }
        let folder = std::path::absolute(cache.join("qemu")).context("the folder of qemu")?;
        let unpacked = Self { root: Some(folder.join("root")) };
        // What it used of the machine may be gone since.
        if unpacked.runs() {
            return Ok(unpacked);
        }
        eprintln!("{PROGRAM} is not on PATH: the package {PACKAGE} is unpacked into {}", folder.display());
        unpack(&folder).with_context(|| {
            format!("guests need {PROGRAM}, of Debian's package {PACKAGE}: install it yourself where it cannot be had so")
        })?;
        if !unpacked.runs() {
            bail!(
                "`{}` fails: install {PROGRAM} yourself",
                shell::describe(unpacked.command().arg("--version"))
            );
        }
        Ok(unpacked)
    }

    fn runs(&self) -> bool {
        shell::ask(self.command().arg("--version")).is_some()
    }

    pub(super) fn command(&self) -> Command {
        let Some(root) = &self.root else { return shell::command(PROGRAM) };
        // Packages still put some libraries into /lib, which is /usr/lib where they are installed.
        let [usr_lib, lib] = ["usr/lib", "lib"].map(|lib| root.join(lib).join("x86_64-linux-gnu"));
        let mut qemu = Command::new(root.join("usr/bin").join(PROGRAM));
        qemu.env("LD_LIBRARY_PATH", format!("{}:{}", usr_lib.display(), lib.display()));
        // Emulation itself is a module.
        qemu.env("QEMU_MODULE_DIR", usr_lib.join("qemu"));
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            qemu.arg("-L").arg(root.join(firmware));
        }
        qemu
    }
}

/// Unpacks the package, and what of its dependencies is not installed, into `folder`/root.
fn unpack(folder: &Path) -> Result<()> {
    let lists = Lists::of_machine(folder.join("apt"))?;
    lists.update()?;
    let packages = lists.missing_for(PACKAGE)?;
    let [files, unpacked, root] = ["packages", "unpacked", "root"].map(|name| folder.join(name));
    for folder in [&files, &unpacked, &root] {
        // What an earlier try left is of no use.
        let _nothing_there = fs::remove_dir_all(folder);
    }
    for folder in [&files, &unpacked] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    lists.download(&packages, &files)?;
    let entries = fs::read_dir(&files).with_context(|| format!("cannot list {}", files.display()))?;
    for entry in entries {
        let file = entry.with_context(|| format!("cannot list {}", files.display()))?.path();
        let status = Command::new("dpkg-deb").arg("--extract").arg(&file).arg(&unpacked).status();
        if !status.context("cannot start dpkg-deb")?.success() {
            bail!("dpkg-deb cannot unpack {}", file.display());
        }
    }
    fs::rename(&unpacked, &root).with_context(|| format!("cannot make {}", root.display()))?;
    fs::remove_dir_all(&files).with_context(|| format!("cannot remove {}", files.display()))
}
