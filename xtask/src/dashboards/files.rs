//! The files in dashboards/ that are made from this source: they are written, or compared with what it makes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{agent, alerts, board::Board, fleet, namespace, node, rules, yaml};

/// A file of dashboards/, by its name there.
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// The four dashboards.
pub(crate) fn boards() -> [Board; 4] {
    [fleet::board(), node::board(), namespace::board(), agent::board()]
}

/// Each dashboard by its name, on one line.
pub(crate) fn board_texts() -> Result<Vec<(&'static str, String)>> {
    let text = |board: Board| {
        let text = serde_json::to_string(&board.json()).context("a dashboard is no JSON")?;
        Ok((board.name, text))
    };
    boards().into_iter().map(text).collect()
}

/// The groups of both rule files, as a PrometheusRule has them; each text in them as `literal` writes it.
pub(crate) fn rule_groups(literal: &dyn Fn(&str) -> String) -> Vec<Value> {
    rules::groups().iter().chain(&alerts::groups()).map(|group| group.json(literal)).collect()
}

/// All files, as this source makes them.
pub(crate) fn make() -> Result<Vec<Made>> {
    let mut files = Vec::new();
    for board in boards() {
        let text = serde_json::to_string_pretty(&board.json()).context("a dashboard is no JSON")?;
        files.push(Made { name: format!("{}.json", board.name), text: text + "\n" });
    }
    let comment = "Made by `cargo xtask dashboards write` from xtask/src/dashboards: change it there.";
    for (name, groups) in [("rules.yml", rules::groups()), ("alerts.yml", alerts::groups())] {
        files.push(Made { name: name.to_owned(), text: yaml::text(comment, &groups) });
    }
    Ok(files)
}

/// dashboards/ of this repository.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("dashboards")
}

/// Writes those that are not as they should be.
pub(crate) fn write() -> Result<()> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    for file in make()? {
        let path = folder.join(&file.name);
        if read(&path)?.as_ref() != Some(&file.text) {
            fs::write(&path, &file.text).with_context(|| format!("cannot write {}", path.display()))?;
            eprintln!("wrote dashboards/{}", file.name);
        }
    }
    Ok(())
}

/// Fails with each file that is not what this source makes.
pub(crate) fn check() -> Result<()> {
    let mut stale = Vec::new();
    for file in make()? {
        if read(&folder().join(&file.name))?.as_ref() != Some(&file.text) {
            stale.push(format!("dashboards/{}", file.name));
        }
    }
    if !stale.is_empty() {
        bail!(
            "not what xtask/src/dashboards makes: {}. Run `cargo xtask dashboards write`, and commit what it writes.",
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
