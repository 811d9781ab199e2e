//! Writes the files in dashboards/, or compares them with what this source makes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{agent, alerts, board::Board, fleet, namespace, node, rules, yaml};

/// A file in dashboards/, with its name.
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// The four dashboards.
pub(crate) fn boards() -> [Board; 4] {
    [fleet::board(), node::board(), namespace::board(), agent::board()]
}

/// Each dashboard's name, and its JSON on one line.
pub(crate) fn board_texts() -> Result<Vec<(&'static str, String)>> {
    let text = |board: Board| {
        let text = serde_json::to_string(&board.json()).context("cannot encode a dashboard as JSON")?;
        Ok((board.name, text))
    };
    boards().into_iter().map(text).collect()
}

/// The groups of both rule files, in the form of a PrometheusRule. `literal` converts each text in them.
pub(crate) fn rule_groups(literal: &dyn Fn(&str) -> String) -> Vec<Value> {
    rules::groups().iter().chain(&alerts::groups()).map(|group| group.json(literal)).collect()
}

/// Makes all files from this source.
pub(crate) fn make() -> Result<Vec<Made>> {
    let mut files = Vec::new();
    for board in boards() {
        let text =
            serde_json::to_string_pretty(&board.json()).context("cannot encode a dashboard as JSON")?;
        files.push(Made { name: format!("{}.json", board.name), text: text + "\n" });
    }
    let comment = "Made by `cargo xtask dashboards write` from xtask/src/dashboards: change it there.";
    for (name, groups) in [("rules.yml", rules::groups()), ("alerts.yml", alerts::groups())] {
        files.push(Made { name: name.to_owned(), text: yaml::text(comment, &groups) });
    }
    Ok(files)
}

/// The directory dashboards/ of this repository.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("dashboards")
}

/// Writes the files that are not up to date.
pub(crate) fn write() -> Result<()> {
    let folder = folder();
    fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create the directory {}", folder.display()))?;
    for file in make()? {
        let path = folder.join(&file.name);
        if read(&path)?.as_ref() != Some(&file.text) {
            fs::write(&path, &file.text).with_context(|| format!("cannot write {}", path.display()))?;
            eprintln!("wrote dashboards/{}", file.name);
        }
    }
    Ok(())
}

/// Fails with the files that are not up to date.
pub(crate) fn check() -> Result<()> {
    let mut stale = Vec::new();
    for file in make()? {
        if read(&folder().join(&file.name))?.as_ref() != Some(&file.text) {
            stale.push(format!("dashboards/{}", file.name));
        }
    }
    if !stale.is_empty() {
        bail!(
            "out of date with xtask/src/dashboards: {}. Run `cargo xtask dashboards write`, and commit the result.",
            stale.join(", ")
        );
    }
    Ok(())
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_files_are_up_to_date() {
        check().expect("dashboards/ is up to date");
    }
}
