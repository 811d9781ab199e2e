//! Builds the guest's file system: the program to run, the programs that it needs, and an init.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::cpio::Archive;
use crate::shell;

const INIT: &str = include_str!("init.sh");

/// Programs that tests and bench run. They come from the machine, because busybox's versions lack options that the
/// tests use.
const PROGRAMS: &[&str] = &["sh", "sleep", "unshare", "nsenter", "lsns"];

/// Directories that must exist before init mounts over them.
const FOLDERS: &[&str] = &["bin", "usr", "usr/bin", "proc", "sys", "dev", "tmp", "run"];

/// Writes an initramfs with these programs. Each has its name in the guest.
pub(super) fn write(to: &Path, programs: &[(&str, &Path)]) -> Result<()> {
    let find = |name: &str| shell::find(name).with_context(|| format!("{name} is not on PATH"));
    let mut files: Vec<_> =
        programs.iter().map(|(name, source)| (format!("/usr/bin/{name}"), (*source).to_owned())).collect();
    for name in PROGRAMS {
        files.push((format!("/usr/bin/{name}"), find(name)?));
    }
    let mut libraries = BTreeSet::new();
    for (_, program) in &files {
        libraries.extend(libraries_of(program)?);
    }
    files.extend(libraries.into_iter().map(|library| (library.clone(), PathBuf::from(library))));
    let busybox = find("busybox")?;
    if !libraries_of(&busybox)?.is_empty() {
        bail!("{} is not static: install busybox-static", busybox.display());
    }
    files.push(("/bin/busybox".to_owned(), busybox));

    let mut archive = Archive::default();
    for folder in folders(files.iter().map(|(path, _)| path.as_str())) {
        archive.folder(&folder);
    }
    archive.file("/init", INIT.as_bytes());
    for (path, source) in &files {
        let content = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        archive.file(path, &content);
    }
    fs::write(to, archive.finish()).with_context(|| format!("cannot write {}", to.display()))
}

/// All directories of the files and of the guest, outer ones first.
fn folders<'a>(files: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = FOLDERS.iter().map(|folder| (*folder).to_owned()).collect();
    for file in files {
        let file = file.trim_start_matches('/');
        all.extend(file.match_indices('/').map(|(end, _)| file[..end].to_owned()));
    }
    all
}

/// The libraries of the program, and its loader. Empty for a static program.
fn libraries_of(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output().context("cannot start ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    if text.contains("statically linked") || complaint.contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    if !output.status.success() {
        bail!("ldd {}: {}: {}", program.display(), output.status, complaint.trim());
    }
    parse_ldd(&text).with_context(|| format!("ldd {}", program.display()))
}

fn parse_ldd(text: &str) -> Result<Vec<String>> {
    let mut libraries = Vec::new();
    for line in text.lines() {
        // A line is `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)` for the loader. The vDSO has no path.
        let place = line.split_once("=>").map_or(line, |(_, place)| place).trim();
        if place == "not found" {
            bail!("{} is not installed", line.trim());
        }
        let path = place.split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            libraries.push(path.to_owned());
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007f02ea09e000)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f02e981e000)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f02ea0a0000)\n";
        let libraries = parse_ldd(text).expect("all are there");
        assert_eq!(libraries, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        let error = parse_ldd("\tlibgone.so => not found\n").expect_err("one is missing");
        assert!(error.to_string().contains("libgone.so"), "{error}");
    }

    #[test]
    fn folders_come_before_their_files() {
        let folders: Vec<_> = folders(["/lib/x86/libc.so"].into_iter()).into_iter().collect();
        let place = |folder: &str| folders.iter().position(|other| other == folder);
        assert!(place("lib") < place("lib/x86") && place("lib").is_some(), "{folders:?}");
        assert!(place("usr") < place("usr/bin") && place("proc").is_some(), "{folders:?}");
    }
}
