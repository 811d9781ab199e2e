//! Collects the licences of the libraries in the program.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::shell;

/// The used part of the output of `cargo metadata`.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    license_file: Option<PathBuf>,
    repository: Option<String>,
    /// `None` for a package of this workspace.
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// `None` for a normal dependency.
    kind: Option<String>,
}

const GLIBC: &str = "The program is linked with the GNU C Library (https://www.gnu.org/software/libc/), which is under the GNU Lesser \
     General\nPublic License 2.1 or later. The sources of pidns-trace are public, and `cargo xtask dist` links them with\n\
     whatever C library is installed.\n";

const RUST: &str = "It holds parts of Rust's standard library (https://www.rust-lang.org/), and the eBPF objects in it parts of Rust's core\n\
     library: MIT OR Apache-2.0.\n";

/// The file in which Debian has the text of glibc's licence.
const LGPL: &str = "/usr/share/common-licenses/LGPL-2.1";

/// Asks cargo for the packages of a target.
fn metadata(target: &str) -> Result<Metadata> {
    let mut cargo = shell::command("cargo");
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target]);
    let json = shell::ask(&mut cargo).context("`cargo metadata` fails")?;
    serde_json::from_str(&json).context("`cargo metadata` does not write JSON")
}

/// Lists each crate in the program with its licence, and then each licence text once.
pub(super) fn text() -> Result<String> {
    let program = metadata(&format!("{}-unknown-linux-gnu", std::env::consts::ARCH))?;
    // The eBPF objects are part of the program.
    let objects = metadata("bpfel-unknown-none")?;
    let mut packages = in_it(&program, "pidns-user")?;
    packages.extend(in_it(&objects, "pidns-ebpf")?);
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    packages.dedup_by(|a, b| a.id == b.id);

    let mut list = String::new();
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages {
        let Package { name, version, license, repository, .. } = package;
        let named = license.as_deref().unwrap_or("see its text");
        list.push_str(&format!("{name} {version}: {named}"));
        if let Some(repository) = repository {
            list.push_str(&format!(" ({repository})"));
        }
        list.push('\n');
        let files = files(package)?;
        if files.is_empty() && license.is_none() {
            bail!("{name} {version} does not state its licence");
        }
        for text in files {
            texts.entry(text).or_default().insert(format!("{name} {version}"));
        }
    }

    let lgpl = fs::read_to_string(LGPL).with_context(|| format!("cannot read glibc's licence, {LGPL}"))?;
    texts.entry(lgpl).or_default().insert("GNU C Library".to_owned());

    let mut out = format!("{GLIBC}\n{RUST}\nThe program holds these crates:\n\n{list}");
    for (text, packages) in texts {
        let packages: Vec<_> = packages.into_iter().collect();
        out.push_str(&format!("\n{}\n{}\n\n{}\n", "=".repeat(100), packages.join(", "), text.trim_end()));
    }
    Ok(out)
}

/// All dependencies of a package of the workspace, without build and test dependencies.
fn in_it<'a>(metadata: &'a Metadata, name: &str) -> Result<Vec<&'a Package>> {
    let nodes: BTreeMap<&str, &Node> =
        metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let packages: BTreeMap<&str, &Package> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    let start = metadata.packages.iter().find(|package| package.name == name);
    let start = start.with_context(|| format!("{name} is not in the workspace"))?;
    let mut todo = vec![start.id.as_str()];
    let mut seen = BTreeSet::new();
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        let node = nodes.get(id).with_context(|| format!("cargo did not resolve {id}"))?;
        let normal = node.deps.iter().filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none()));
        todo.extend(normal.map(|dep| dep.pkg.as_str()));
    }
    let mut found = Vec::new();
    for id in seen {
        let package = *packages.get(id).with_context(|| format!("cargo does not know {id}"))?;
        if package.source.is_some() {
            found.push(package);
        }
    }
    Ok(found)
}

/// The texts of the package's licence files.
fn files(package: &Package) -> Result<Vec<String>> {
    let folder = package.manifest_path.parent().context("the manifest has no directory")?;
    let mut paths: Vec<PathBuf> = package.license_file.iter().map(|file| folder.join(file)).collect();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry.context("cannot read a directory to its end")?.path();
        if path.is_file() && is_licence(&path) && !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: &PathBuf| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    paths
        .iter()
        .map(|path| read(path).map(|bytes| String::from_utf8_lossy(&bytes).replace('\r', "")))
        .collect()
}

fn is_licence(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_uppercase();
    ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"]
        .iter()
        .any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crate_in_the_program_is_named_with_its_licence_and_none_that_only_builds_it() {
        let text = text().expect("cargo knows the dependencies");
        for in_it in [
            "\naya 0.14.0: ",
            "\naya-ebpf ",
            "\ntokio 1",
            "\nzstd-sys ",
            "Permission is hereby granted",
            "Apache License",
            "GNU LESSER GENERAL PUBLIC LICENSE",
        ] {
            assert!(text.contains(in_it), "{in_it:?}");
        }
        for not in ["\nproptest ", "\nlibtest-mimic ", "\npidns-ebpf ", "\ncc 1"] {
            assert!(!text.contains(not), "{not:?}");
        }
    }

    #[test]
    fn licence_files_are_recognised_by_name() {
        for name in ["LICENSE", "LICENSE-MIT", "license.md", "COPYING", "NOTICE.txt"] {
            assert!(is_licence(Path::new(name)), "{name}");
        }
        assert!(!is_licence(Path::new("README.md")) && !is_licence(Path::new("src")));
    }
}
