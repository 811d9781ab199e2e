//! Downloads the kernels to test on, and keeps them in target/vm/kernels.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::{archive::Lists, candidates, candidates::Candidate, image, wanted::KernelName};
use crate::shell;

/// How long a downloaded kernel counts as the newest of its kind.
const FRESH: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A downloaded kernel.
pub(crate) struct Kernel {
    pub(crate) name: KernelName,
    /// The compressed kernel, as a boot loader reads it.
    pub(crate) vmlinuz: PathBuf,
    /// The name and the version of Debian's package.
    pub(crate) package: String,
    pub(crate) version: String,
}

impl Kernel {
    /// Writes the kernel's BTF next to the kernel. Returns the path.
    pub(crate) fn btf(&self) -> Result<PathBuf> {
        let file = self.vmlinuz.with_file_name("btf");
        let btf = image::btf(&self.vmlinuz)
            .with_context(|| format!("kernel {} ({}): no BTF", self.name, self.package))?;
        fs::write(&file, btf).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }
}

/// The stored facts about a kernel.
#[derive(Serialize, Deserialize)]
struct Note {
    package: String,
    version: String,
    suite: String,
    /// When a check last showed that it is the newest of its kind.
    checked: SystemTime,
}

impl Note {
    fn is_fresh(&self) -> bool {
        // A time in the future comes from a wrong clock.
        self.checked.elapsed().is_ok_and(|age| age < FRESH)
    }
}

/// The kernel from the cache if it is fresh, and unless `refresh` is set. An old one is used if the archive cannot be
/// reached.
pub(crate) fn fetch(cache: &Path, name: &KernelName, refresh: bool) -> Result<Kernel> {
    let folder = cache.join("kernels").join(name.as_str());
    let cached = read(&folder);
    if let Some(note) = cached.as_ref().filter(|note| note.is_fresh() && !refresh) {
        return Ok(kernel(&folder, name, note));
    }
    match (renew(cache, &folder, name, cached.as_ref()), cached) {
        (Ok(note), _) => Ok(kernel(&folder, name, &note)),
        (Err(error), Some(note)) if !refresh => {
            eprintln!(
                "kernel {name}: keeping {}, because a newer one could not be downloaded: {error:#}",
                note.version
            );
            Ok(kernel(&folder, name, &note))
        }
        (Err(error), _) => Err(error.context(format!("cannot download kernel {name}"))),
    }
}

fn kernel(folder: &Path, name: &KernelName, note: &Note) -> Kernel {
    Kernel {
        name: name.clone(),
        vmlinuz: folder.join("vmlinuz"),
        package: note.package.clone(),
        version: note.version.clone(),
    }
}

/// Reads the note. An unreadable note counts as missing.
fn read(folder: &Path) -> Option<Note> {
    let note = serde_json::from_slice(&fs::read(folder.join("note.json")).ok()?).ok()?;
    folder.join("vmlinuz").exists().then_some(note)
}

/// The suites that have the kernel: the one that maintains this version, or those with newer kernels.
fn suites(name: &KernelName) -> &'static [&'static str] {
    match name.as_str() {
        "5.10" => &["bullseye-security"],
        "6.1" => &["bookworm-security"],
        "6.12" => &["trixie-security"],
        KernelName::NEWEST => &["sid"],
        _ => &["trixie-backports", "sid"],
    }
}

fn renew(cache: &Path, folder: &Path, name: &KernelName, cached: Option<&Note>) -> Result<Note> {
    let mut tried = Vec::new();
    for suite_name in suites(name) {
        let suite = Lists::of_suite(suite_name, cache.join("apt").join(suite_name))?;
        suite.update()?;
        // Try at most three: each is a download of about ten megabytes, and a mirror without three of them lacks the
        // rest too.
        for candidate in candidates::candidates(&suite.packages()?, name).into_iter().take(3) {
            let note = Note {
                package: candidate.package.clone(),
                version: candidate.version.clone(),
                suite: (*suite_name).to_owned(),
                checked: SystemTime::now(),
            };
            let same = |cached: &Note| cached.package == note.package && cached.version == note.version;
            if !cached.is_some_and(same)
                && let Err(error) = take(&suite, &candidate, folder)
            {
                eprintln!("kernel {name}: {}: {error:#}", candidate.package);
                tried.push(candidate.package);
                continue;
            }
            let text = serde_json::to_string_pretty(&note).context("cannot encode the note of a kernel")?;
            fs::write(folder.join("note.json"), text).context("cannot write the note of a kernel")?;
            return Ok(note);
        }
    }
    if tried.is_empty() {
        bail!("{} has no package with a kernel {name}", suites(name).join(" and "));
    }
    bail!("could not download any of these packages: {}", tried.join(", "))
}

/// Downloads the package and extracts the kernel.
fn take(suite: &Lists, candidate: &Candidate, folder: &Path) -> Result<()> {
    let work = folder.join("package");
    // Remove the rest of an earlier attempt.
    let _nothing_there = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    suite.download(&[format!("{}={}", candidate.package, candidate.version)], &work)?;
    let mut files = fs::read_dir(&work).with_context(|| format!("cannot list {}", work.display()))?;
    let package = files.next().with_context(|| format!("{} was not downloaded", candidate.package))?;
    unpack(&package.context("cannot list the downloaded package")?.path(), &work)?;
    let vmlinuz = find(&work)?.with_context(|| format!("{} has no vmlinuz", candidate.package))?;
    fs::rename(&vmlinuz, folder.join("vmlinuz")).context("cannot keep the kernel")?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

/// Extracts only the kernel, because some packages also hold a hundred megabytes of modules.
fn unpack(package: &Path, into: &Path) -> Result<()> {
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.arg("--fsys-tarfile").arg(package).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut files = dpkg.spawn().context("cannot start dpkg-deb")?;
    let tar = Command::new("tar")
        .args(["--extract", "--no-same-owner", "--wildcards", "--no-anchored", "vmlinuz*"])
        .current_dir(into)
        .stdin(files.stdout.take().context("dpkg-deb has no stdout")?)
        .status()
        .context("cannot start tar")?;
    let dpkg = files.wait().context("cannot wait for dpkg-deb")?;
    if !tar.success() || !dpkg.success() {
        bail!("cannot unpack {}: dpkg-deb {dpkg}, tar {tar}", package.display());
    }
    Ok(())
}

/// Finds the kernel in /boot, or since 7.2 next to its modules.
fn find(folder: &Path) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let path = entry.path();
        let kind = entry.file_type().with_context(|| format!("cannot read {}", path.display()))?;
        if kind.is_dir() {
            if let Some(found) = find(&path)? {
                return Ok(Some(found));
            }
        } else if kind.is_file() && entry.file_name().to_string_lossy().starts_with("vmlinuz") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Fails if a program that downloading needs is missing. The machine may have no apt.
pub(crate) fn check_tools() -> Result<()> {
    for program in ["apt-get", "dpkg-deb", "tar"] {
        if shell::find(program).is_none() {
            bail!("{program} is not on PATH: the kernels to test on are Debian's packages");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(checked: SystemTime) -> Note {
        Note { package: "p".into(), version: "1".into(), suite: "sid".into(), checked }
    }

    #[test]
    fn a_kernel_is_fresh_for_a_week() {
        let now = SystemTime::now();
        assert!(note(now).is_fresh());
        assert!(!note(now - FRESH).is_fresh());
        assert!(!note(now + Duration::from_secs(3600)).is_fresh(), "a clock that was wrong");
    }

    #[test]
    fn every_kernel_of_the_default_set_has_its_suite() {
        for wanted in super::super::wanted::default_set() {
            assert_eq!(suites(&wanted.kernel).len(), 1, "{}", wanted.kernel);
        }
        assert_eq!(suites(&"7.1".parse().expect("a kernel")), ["trixie-backports", "sid"]);
    }
}
