//! The files that are published, laid out once for the archive and the packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{Source, licences};
use crate::shell;

const LICENCES: [&str; 3] = ["LICENSE-APACHE", "LICENSE-MIT", "LICENSE-GPL2"];

/// Copies packaging/ to `work`, and puts beside it, in `stage/`, what is built. Returns that folder.
pub(super) fn fill(source: &Source, program: &Path, work: &Path) -> Result<PathBuf> {
    let root = root()?;
    let stage = work.join("stage");
    for folder in [&stage, &stage.join("man"), &stage.join("completions")] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    for name in ["Cargo.toml", "debian", "default", "rpm", "systemd"] {
        copy_all(&root.join("packaging").join(name), &work.join(name))?;
    }
    copy(program, &stage.join("pidns-trace"))?;
    let ours = stage.join("pidns-trace");

    // bash reads a command's completions from a file of the command's name, zsh from one with an underscore before it.
    for (shell, file) in [("bash", "pidns-trace.bash"), ("zsh", "_pidns-trace"), ("fish", "pidns-trace.fish")]
    {
        let text = shell::ask(Command::new(&ours).args(["completions", shell]));
        let text = text.with_context(|| format!("the program writes no completions for {shell}"))?;
        write(&stage.join("completions").join(file), &text)?;
    }
    shell::run(source.dated(Command::new(&ours).arg("man").arg(stage.join("man"))))?;

    for name in LICENCES.into_iter().chain(["CHANGELOG.md", "README.md"]) {
        copy(&root.join(name), &stage.join(name))?;
    }
    write(&stage.join("THIRD-PARTY.txt"), &licences::text()?)?;
    write(&stage.join("changelog.Debian"), &debian_changelog(source)?)?;
    Ok(stage)
}

/// The archive, in `folder`: the same bytes for the same files.
pub(super) fn archive(source: &Source, work: &Path, folder: &Path) -> Result<PathBuf> {
    let name = format!("pidns-trace-{}-{}-linux", source.version, std::env::consts::ARCH);
    let root = work.join("archive").join(&name);
    copy_all(&work.join("stage"), &root)?;
    copy_all(&work.join("systemd"), &root.join("systemd"))?;
    copy_all(&work.join("default"), &root.join("systemd/default"))?;
    fs::remove_file(root.join("changelog.Debian")).context("cannot remove Debian's changelog")?;
    let path = folder.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--format=gnu", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.args(["--mode=u=rwX,go=rX", &format!("--mtime=@{}", source.epoch)]);
    // gzip's own name and time stay out (-n).
    tar.args(["--use-compress-program=gzip -9n", "-cf"]).arg(&path);
    shell::run(tar.arg("-C").arg(work.join("archive")).arg(&name))?;
    Ok(path)
}

fn debian_changelog(source: &Source) -> Result<String> {
    let mut date = Command::new("date");
    date.env("LC_ALL", "C").args(["-u", "-R", &format!("-d@{}", source.epoch)]);
    let date = shell::ask(&mut date).context("`date` fails")?;
    Ok(format!(
        "pidns-trace ({}-{}) unstable; urgency=medium\n\n  * What has changed is in CHANGELOG.md of the sources.\n\n \
         -- The pidns-trace authors <maintainers@pidns-trace.example>  {}\n",
        source.version,
        super::packages::FIRST,
        date.trim()
    ))
}

/// Of this repository.
pub(super) fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is in no workspace")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// A file, or a folder with all that is in it.
fn copy_all(from: &Path, to: &Path) -> Result<()> {
    if from.is_file() {
        return copy(from, to);
    }
    fs::create_dir_all(to).with_context(|| format!("cannot make the folder {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let name = entry.context("a folder cannot be read to its end")?.file_name();
        copy_all(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    if text.is_empty() {
        bail!("nothing to write into {}", path.display());
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
