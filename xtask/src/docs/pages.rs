//! All pages of the repository, and whether a path and an anchor exist.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::page::Page;

/// All Markdown pages of the repository, by their path in it.
pub(super) type Pages = BTreeMap<PathBuf, Page>;

pub(super) fn read_pages(root: &Path) -> Result<Pages> {
    let mut pages = BTreeMap::new();
    for path in files(root, &["md"])? {
        let text = fs::read_to_string(root.join(&path))
            .with_context(|| format!("cannot read {}", path.display()))?;
        pages.insert(path, Page::read(&text));
    }
    Ok(pages)
}

/// All files of the repository with one of these extensions, by their path. Skips the directories of cargo and git.
pub(super) fn files(root: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
            let (path, name) = (entry.path(), entry.file_name());
            let is_hidden = name.as_encoded_bytes().starts_with(b".") && name != ".github";
            if entry.file_type().with_context(|| format!("cannot read {}", path.display()))?.is_dir() {
                if !is_hidden && name != "target" && name != "node_modules" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extensions.iter().any(|one| extension == *one))
            {
                found.push(path.strip_prefix(root)?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The problem of a path in the repository with an optional anchor. `None` if both exist.
pub(super) fn problem_at(
    path: &Path,
    anchor: Option<&str>,
    pages: &Pages,
    exists: impl Fn(&Path) -> bool,
) -> Option<String> {
    match (pages.get(path), anchor) {
        (Some(page), Some(anchor)) if !page.anchors.contains(anchor) => {
            Some(format!("{} has no anchor #{anchor}", path.display()))
        }
        (Some(_), _) => None,
        (None, _) if !exists(path) => Some(format!("there is no {}", path.display())),
        (None, Some(_)) => Some("only Markdown pages have anchors".to_owned()),
        (None, None) => None,
    }
}
