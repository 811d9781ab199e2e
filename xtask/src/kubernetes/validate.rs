//! Checks the manifests against Kubernetes' schemas, with kubernetes-validate from PyPI.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, bail};

use super::files;
use crate::{python, shell};

const VALIDATOR: &str = "kubernetes-validate==1.37.0";
/// The oldest and the newest version to check against. 1.30 brought appArmorProfile.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];

/// Fails if a manifest of one of Kubernetes' own types has an unknown field, or lacks one.
pub(super) fn check() -> Result<()> {
    let program = python::tool(VALIDATOR, "kubernetes-validate")?;
    let mut own: Vec<PathBuf> = Vec::new();
    let mut others = Vec::new();
    for file in files::make()?.iter().filter(|file| file.path.starts_with("kubernetes/")) {
        // Kubernetes' schemas do not include the operator's types.
        let is_operators = file.text.contains("apiVersion: monitoring.coreos.com/");
        let list = if is_operators { &mut others } else { &mut own };
        list.push(files::packaging().join(&file.path));
    }
    for version in VERSIONS {
        let mut validate = Command::new(&program);
        validate.args(["--strict", "--kubernetes-version", version]).args(&own);
        shell::run(&mut validate)?;
    }
    if own.is_empty() || others.len() != 2 {
        bail!("{} manifests of Kubernetes' own types, {} of others", own.len(), others.len());
    }
    let names: Vec<_> = others.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    eprintln!(
        "{} manifests are valid; not checked, because there is no schema: {}",
        own.len(),
        names.join(", ")
    );
    Ok(())
}
