//! Finds the pages that other files mention, as `docs/events.md#order` in help texts, comments and alerts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::pages::{Pages, files, problem_at};

/// The extensions of the searched files.
const EXTENSIONS: [&str; 5] = ["rs", "sh", "toml", "yaml", "yml"];

/// A mention of a page: the path from the root of the repository, and the anchor.
#[derive(Debug, PartialEq, Eq)]
struct Mention<'a> {
    line: usize,
    path: &'a str,
    anchor: Option<&'a str>,
}

/// Each mention of a page or an anchor that does not exist.
pub(super) fn problems(root: &Path, pages: &Pages) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    // The tests in this directory mention invented pages.
    let own = Path::new("xtask/src/docs");
    for file in files(root, &EXTENSIONS)?.into_iter().filter(|file| !file.starts_with(own)) {
        let text = fs::read(root.join(&file)).with_context(|| format!("cannot read {}", file.display()))?;
        let text = String::from_utf8_lossy(&text);
        for Mention { line, path, anchor } in mentions(&text) {
            let exists = |path: &Path| root.join(path).exists();
            if let Some(problem) = problem_at(&PathBuf::from(path), anchor, pages, exists) {
                problems.push(format!("{}:{line}: {problem}", file.display()));
            }
        }
    }
    Ok(problems)
}

/// The mentions of pages in docs/. A page of another project (`…/blob/master/docs/x.md`) does not count.
fn mentions(text: &str) -> Vec<Mention<'_>> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (at, _) in line.match_indices("docs/") {
            if line[..at].chars().next_back().is_some_and(is_part) {
                continue;
            }
            let end = line[at..].find(|c| !is_part(c)).map_or(line.len(), |length| at + length);
            let path = line[at..end].trim_end_matches('.');
            if !path.ends_with(".md") {
                continue;
            }
            let anchor = line[at + path.len()..].strip_prefix('#').map(|anchor| {
                let is_part = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
                &anchor[..anchor.find(|c| !is_part(c)).unwrap_or(anchor.len())]
            });
            // In `docs/runbook.md#{}` the anchor is filled in at run time.
            let anchor = anchor.filter(|anchor| !anchor.is_empty());
            found.push(Mention { line: number + 1, path, anchor });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_found_with_their_anchors() {
        let text = "/// See docs/events.md.\n(docs/snapshots.md#fields) and `docs/internals/a.md`\n\
                    https://example.org/project/blob/master/docs/other.md\nformat!(\"docs/runbook.md#{name}\")\ndocs/\n";
        let mention = |line, path, anchor| Mention { line, path, anchor };
        assert_eq!(
            mentions(text),
            [
                mention(1, "docs/events.md", None),
                mention(2, "docs/snapshots.md", Some("fields")),
                mention(2, "docs/internals/a.md", None),
                mention(4, "docs/runbook.md", None),
            ]
        );
    }
}
