//! Finds the qemu for guests: the machine's own, or else Debian's package, unpacked into a separate directory.
//!
//! The package is not installed, because its dependencies may conflict with installed packages: in Debian 12, qemu
//! breaks the qemu-utils of the backports. Unpacking also needs no root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::archive::Lists;
use crate::shell;

/// The name of the program.
const PROGRAM: &str = "qemu-system-x86_64";
/// The Debian package with the program.
const PACKAGE: &str = "qemu-system-x86";

/// A qemu that runs.
pub(super) struct Qemu {
    /// The directory of the unpacked packages. `None` for the machine's own qemu.
    root: Option<PathBuf>,
}

impl Qemu {
    /// The machine's qemu, an earlier unpacked one, or a new one.
    pub(super) fn find_or_unpack(cache: &Path) -> Result<Self> {
        if shell::find(PROGRAM).is_some() {
            return Ok(Self { root: None });
        }
        let folder = std::path::absolute(cache.join("qemu")).context("cannot find the directory of qemu")?;
        let unpacked = Self { root: Some(folder.join("root")) };
        // A library of the machine that it used may be gone.
        if unpacked.runs() {
            return Ok(unpacked);
        }
        eprintln!("{PROGRAM} is not on PATH: unpacking the package {PACKAGE} into {}", folder.display());
        unpack(&folder).with_context(|| {
            format!("guests need {PROGRAM} from Debian's package {PACKAGE}, which could not be unpacked: install it yourself")
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
        // Packages still put some libraries into /lib, which is /usr/lib on an installed system.
        let [usr_lib, lib] = ["usr/lib", "lib"].map(|lib| root.join(lib).join("x86_64-linux-gnu"));
        let mut qemu = Command::new(root.join("usr/bin").join(PROGRAM));
        qemu.env("LD_LIBRARY_PATH", format!("{}:{}", usr_lib.display(), lib.display()));
        // The emulator is a module.
        qemu.env("QEMU_MODULE_DIR", usr_lib.join("qemu"));
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            qemu.arg("-L").arg(root.join(firmware));
        }
        qemu
    }
}

/// Unpacks the package and its missing dependencies into `folder`/root.
fn unpack(folder: &Path) -> Result<()> {
    let lists = Lists::of_machine(folder.join("apt"))?;
    lists.update()?;
    let packages = lists.missing_for(PACKAGE)?;
    let [files, unpacked, root] = ["packages", "unpacked", "root"].map(|name| folder.join(name));
    for folder in [&files, &unpacked, &root] {
        // Remove the rest of an earlier attempt.
        let _nothing_there = fs::remove_dir_all(folder);
    }
    for folder in [&files, &unpacked] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
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
    fs::rename(&unpacked, &root).with_context(|| format!("cannot create {}", root.display()))?;
    fs::remove_dir_all(&files).with_context(|| format!("cannot remove {}", files.display()))
}
