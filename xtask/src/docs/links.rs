//! Checks that every relative link and anchor of the Markdown pages exists, and that the index links to all pages of
//! docs/.
//!
//! Links to other sites are not checked, because that would need the network.

use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};

use super::{
    mentions,
    page::Page,
    pages::{Pages, problem_at, read_pages},
};

/// The page that must link to all others in docs/.
const INDEX: &str = "docs/README.md";

/// Fails with each broken link, anchor and mention of a page in the repository.
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

/// The problems of the links on one page.
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

/// The problem of a link. `None` if it is valid or leads to another site.
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
            None => return Some("the link leaves the repository".to_owned()),
        }
    };
    problem_at(&path, anchor, pages, exists)
}

/// Resolves `.` and `..`. `None` if the path leaves the repository.
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

/// The pages in docs/ without a link from the index.
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

    /// The problems of a page docs/a.md with this text.
    fn problems(text: &str) -> Vec<String> {
        let pages = pages(&[("docs/a.md", text), ("docs/b.md", "# Part one\n"), ("README.md", "# Top\n")]);
        let exists = |path: &Path| ["docs", "docs/x.svg"].iter().any(|name| path == Path::new(name));
        of_page(Path::new("docs/a.md"), &pages[Path::new("docs/a.md")], &pages, exists)
    }

    #[test]
    fn valid_links_are_accepted() {
        let text = "# Here\n[1](b.md) [2](b.md#part-one) [3](#here) [4](../README.md#top) [5](x.svg) [6](../docs) \
                    [7](https://example.org/nothing#here) [8](mailto:a@example.org)\n";
        assert_eq!(problems(text), Vec::<String>::new());
    }

    #[test]
    fn each_broken_link_is_reported_with_its_line() {
        for (link, problem) in [
            ("c.md", "there is no docs/c.md"),
            ("b.md#part-two", "docs/b.md has no anchor #part-two"),
            ("#there", "docs/a.md has no anchor #there"),
            ("../README.md#Top", "README.md has no anchor #Top"),
            ("../../a.md", "the link leaves the repository"),
            ("/docs/b.md", "a link within the repository must be relative to its page"),
            ("x.svg#L1", "only Markdown pages have anchors"),
        ] {
            assert_eq!(problems(&format!("\n[text]({link})\n")), [format!("docs/a.md:2: {link}: {problem}")]);
        }
        assert_eq!(problems("[a][b]\n"), ["docs/a.md:1: the reference [b] is not defined on the page"]);
    }

    #[test]
    fn a_page_missing_from_the_index_is_reported() {
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
