//! Checks that every relative link and anchor of the Markdown pages leads somewhere, and that the pages of docs/ can be found.
//!
//! Links to other sites are not followed: a check must not need the network.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{mentions, page::Page};

/// The page that links to all others of docs/.
const INDEX: &str = "docs/README.md";

/// Fails with each link, anchor and mention of a page in the repository that leads nowhere.
pub(crate) fn check(root: &Path) -> Result<()> {
    let pages = read_pages(root)?;
    let exists = |path: &Path| root.join(path).exists();
    let mut problems: Vec<String> =
        pages.iter().flat_map(|(name, page)| of_page(name, page, &pages, exists)).collect();
    problems.extend(not_in_index(&pages));
    problems.extend(mentions::problems(root, &pages)?);
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{} links lead nowhere:\n  {}", problems.len(), problems.join("\n  "))
}

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

/// The files of the repository with one of these extensions, by their path in it. Folders of cargo and git are left out.
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

/// What is wrong with the links of one page.
fn of_page(name: &Path, page: &Page, pages: &Pages, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let at = |line: usize, problem: String| format!("{}:{line}: {problem}", name.display());
    let mut problems: Vec<_> = page
        .undefined
        .iter()
        .map(|(line, reference)| at(*line, format!("the reference [{reference}] is not defined on the page")))
        .collect();
    for link in &page.links {
        if let Some(problem) = problem_of(name, &link.target, pages, &exists) {
            problems.push(at(link.line, format!("{}: {problem}", link.target)));
        }
    }
    problems
}

/// What is wrong with a link from a page; nothing with one to another site.
fn problem_of(from: &Path, target: &str, pages: &Pages, exists: impl Fn(&Path) -> bool) -> Option<String> {
    let is_elsewhere = target.split(['/', '#', '?']).next().is_some_and(|start| start.contains(':'));
    if is_elsewhere {
        return None;
    }
    if target.starts_with('/') {
        return Some("a link within the repository must be relative to its page".to_owned());
    }
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (target, None),
    };
    let path = if path.is_empty() {
        from.to_owned()
    } else {
        let folder = from.parent().unwrap_or(Path::new(""));
        match normal(&folder.join(path)) {
            Some(path) => path,
            None => return Some("it leads out of the repository".to_owned()),
        }
    };
    problem_at(&path, anchor, pages, exists)
}

/// What is wrong with a place of the repository: a file or folder, and an anchor on a page.
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

/// The path without `.` and `..`; none where it leaves the repository.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if !normal.pop() {
                    return None;
                }
            }
            other => normal.push(other),
        }
    }
    Some(normal)
}

/// The pages of docs/ that the index does not link to.
fn not_in_index(pages: &Pages) -> Vec<String> {
    let index = Path::new(INDEX);
    let Some(page) = pages.get(index) else { return vec![format!("there is no {INDEX}")] };
    let linked: Vec<_> = page
        .links
        .iter()
        .filter_map(|link| normal(&Path::new("docs").join(link.target.split('#').next()?)))
        .collect();
    pages
        .keys()
        .filter(|path| path.starts_with("docs") && *path != index && !linked.contains(path))
        .map(|path| format!("{INDEX} has no link to {}", path.display()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(texts: &[(&str, &str)]) -> Pages {
        texts.iter().map(|(name, text)| (PathBuf::from(name), Page::read(text))).collect()
    }

    /// The problems of the page a.md in docs/ with this text.
    fn problems(text: &str) -> Vec<String> {
        let pages = pages(&[("docs/a.md", text), ("docs/b.md", "# Part one\n"), ("README.md", "# Top\n")]);
        let exists = |path: &Path| ["docs", "docs/x.svg"].iter().any(|name| path == Path::new(name));
        of_page(Path::new("docs/a.md"), &pages[Path::new("docs/a.md")], &pages, exists)
    }

    #[test]
    fn links_that_lead_somewhere_are_no_problem() {
        let text = "# Here\n[1](b.md) [2](b.md#part-one) [3](#here) [4](../README.md#top) [5](x.svg) [6](../docs) \
                    [7](https://example.org/nothing#here) [8](mailto:a@example.org)\n";
        assert_eq!(problems(text), Vec::<String>::new());
    }

    #[test]
    fn each_link_that_leads_nowhere_is_named_with_its_line() {
        for (link, problem) in [
            ("c.md", "there is no docs/c.md"),
            ("b.md#part-two", "docs/b.md has no anchor #part-two"),
            ("#there", "docs/a.md has no anchor #there"),
            ("../README.md#Top", "README.md has no anchor #Top"),
            ("../../a.md", "it leads out of the repository"),
            ("/docs/b.md", "a link within the repository must be relative to its page"),
            ("x.svg#L1", "only Markdown pages have anchors"),
        ] {
            assert_eq!(problems(&format!("\n[text]({link})\n")), [format!("docs/a.md:2: {link}: {problem}")]);
        }
        assert_eq!(problems("[a][b]\n"), ["docs/a.md:1: the reference [b] is not defined on the page"]);
    }

    #[test]
    fn a_page_that_the_index_leaves_out_is_named() {
        let pages = pages(&[
            ("docs/README.md", "[a](a.md#x) [c](internals/c.md)"),
            ("docs/a.md", ""),
            ("docs/b.md", ""),
            ("docs/internals/c.md", ""),
            ("README.md", ""),
        ]);
        assert_eq!(not_in_index(&pages), ["docs/README.md has no link to docs/b.md"]);
    }

    #[test]
    fn the_pages_of_this_repository_are_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let pages = read_pages(&root).expect("the pages can be read");
        for page in ["README.md", "docs/events.md", "dashboards/README.md"] {
            assert!(pages.contains_key(Path::new(page)), "{page}");
        }
        assert!(pages.keys().all(|path| !path.starts_with("target")));
    }
}
