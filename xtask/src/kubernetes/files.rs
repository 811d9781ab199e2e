//! Writes the files in packaging/kubernetes and packaging/chart, or compares them with what this source makes.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{agent, chart, choice::Form, monitoring, web, yaml};

const COMMENT: &str =
    "# Made by `cargo xtask kubernetes write` from xtask/src/kubernetes: change it there.\n";

/// A file in packaging/, with its path from there.
pub(super) struct Made {
    pub(super) path: String,
    pub(super) text: String,
}

/// A manifest: the choice that includes it in the chart (if it is optional), its name, and its contents.
type Manifest = (Option<&'static str>, String, Value);

fn manifests(form: Form) -> Result<Vec<Manifest>> {
    let mut all = Vec::new();
    if form == Form::Plain {
        // Helm creates the namespace itself, or its user does.
        all.push((None, "namespace".to_owned(), agent::namespace()));
    }
    all.push((None, "serviceaccount".to_owned(), agent::service_account(form)));
    all.push((None, "daemonset".to_owned(), agent::daemon_set(form)));
    all.push((Some("networkPolicy.enabled"), "networkpolicy".to_owned(), web::network_policy(form)));
    let prometheus = Some("prometheus.enabled");
    all.push((prometheus, "podmonitor".to_owned(), monitoring::pod_monitor(form)));
    all.push((prometheus, "prometheusrule".to_owned(), monitoring::prometheus_rule(form)));
    for (name, map) in monitoring::config_maps(form)? {
        all.push((Some("dashboards.enabled"), name, map));
    }
    Ok(all)
}

/// Makes all files from this source.
pub(super) fn make() -> Result<Vec<Made>> {
    let mut files = Vec::new();
    for (_, name, manifest) in manifests(Form::Plain)? {
        let text = format!("{COMMENT}{}", yaml::document(&manifest));
        files.push(Made { path: format!("kubernetes/{name}.yaml"), text });
    }
    for (choice, name, manifest) in manifests(Form::Chart)? {
        let template = yaml::document(&manifest);
        let template = choice.map_or(template.clone(), |path| chart::only_if(path, &template));
        files.push(Made {
            path: format!("chart/templates/{name}.yaml"),
            text: format!("{COMMENT}{template}"),
        });
    }
    for (name, text) in [("Chart", chart::chart()), ("values", chart::values())] {
        files.push(Made { path: format!("chart/{name}.yaml"), text: format!("{COMMENT}{text}") });
    }
    Ok(files)
}

/// Writes the files that are not up to date.
pub(super) fn write() -> Result<()> {
    for file in make()? {
        let path = packaging().join(&file.path);
        if read(&path)?.as_ref() != Some(&file.text) {
            let folder = path.parent().context("the file has no directory")?;
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
            fs::write(&path, &file.text).with_context(|| format!("cannot write {}", path.display()))?;
            eprintln!("wrote packaging/{}", file.path);
        }
    }
    Ok(())
}

/// Fails with the files that are not up to date.
pub(crate) fn check() -> Result<()> {
    let mut stale = Vec::new();
    for file in make()? {
        if read(&packaging().join(&file.path))?.as_ref() != Some(&file.text) {
            stale.push(format!("packaging/{}", file.path));
        }
    }
    if !stale.is_empty() {
        bail!(
            "out of date with xtask/src/kubernetes: {}. Run `cargo xtask kubernetes write`, and commit the result.",
            stale.join(", ")
        );
    }
    Ok(())
}

/// The directory packaging/ of this repository.
pub(super) fn packaging() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("packaging")
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
