//! Checks the order of the modules of pidns-user: each may import only modules below it.
//!
//! Code under `#[cfg(test)]`, in files named tests.rs and in directories named tests may import anything.

mod names;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::Path as FilePath,
};

use anyhow::{Context as _, Result, bail};

use self::names::{Mention, Path, join};

/// The modules from the bottom to the top. Modules in the same row may not import each other.
const ORDER: [&[&str]; 18] = [
    &["text", "signals"],
    &["event"],
    &["procfs"],
    &["container"],
    &["kernel"],
    &["model"],
    &["source"],
    &["filter"],
    &["target"],
    &["pipeline"],
    &["explanation"],
    &["output"],
    &["findings"],
    &["metrics"],
    &["web"],
    &["cli"],
    &["commands"],
    &[MAIN],
];

/// main.rs, which is a separate crate.
const MAIN: &str = "main.rs";

/// A name that only some modules may use.
struct Rule {
    matches: fn(&[&str]) -> bool,
    is_allowed_in: fn(&str) -> bool,
    /// Why other modules may not use it, and what to do instead.
    advice: &'static str,
}

const RULES: [Rule; 4] = [
    Rule {
        matches: |path| matches!(path, ["aya" | "aya_log" | "aya_obj", ..]),
        is_allowed_in: |module| module == "kernel",
        advice: "only kernel may use aya; add the needed function to kernel",
    },
    Rule {
        matches: |path| matches!(path, ["clap", ..]),
        is_allowed_in: |module| module == "cli",
        advice: "only cli may use clap; parse in cli, and pass plain values on",
    },
    Rule {
        matches: |path| matches!(path, ["pidns_ebpf", "abi", ..]),
        is_allowed_in: |module| !["model", "event", "filter", "output", "explanation"].contains(&module),
        advice: "this module must not depend on the wire format; use the types in event instead",
    },
    Rule {
        matches: |path| {
            path.contains(&"ExitCode")
                || path.ends_with(&["process", "exit"])
                || matches!(path.last(), Some(&("print!" | "println!" | "eprint!" | "eprintln!")))
        },
        is_allowed_in: |module| ["commands", "cli", MAIN].contains(&module),
        advice: "only commands, cli and main.rs print and choose exit codes; return a value or a typed error",
    },
];

/// Fails with each place in the sources that breaks the order.
pub(crate) fn check(sources: &FilePath) -> Result<()> {
    let mut files = Vec::new();
    read(sources, sources, &mut files)?;
    files.sort();
    let shown = FilePath::new("pidns-user/src");
    let problems = problems(&files)?;
    if problems.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = problems
        .iter()
        .map(|Problem { file, line, what, advice }| {
            format!("  {}:{line}: {what}: {advice}", shown.join(file).display())
        })
        .collect();
    bail!("{} imports and names break the order of the modules:\n{}", list.len(), list.join("\n"))
}

/// Reads all Rust files below `folder`. Each gets its path from `root`.
fn read(root: &FilePath, folder: &FilePath, files: &mut Vec<(String, String)>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        if path.is_dir() {
            read(root, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.push((path.strip_prefix(root)?.display().to_string(), source));
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Problem {
    file: String,
    line: usize,
    what: String,
    advice: String,
}

/// Checks files, given as paths from the crate's root with their text.
fn problems(files: &[(String, String)]) -> Result<Vec<Problem>> {
    let tree = Tree::read(files)?;
    let mut problems = Vec::new();
    for file in &tree.files {
        problems.extend(tree.misplaced(file));
    }
    problems.extend(tree.without_place());
    problems.extend(tree.circles());
    problems.sort();
    Ok(problems)
}

/// The files without tests, and the names in them.
struct Tree {
    files: Vec<File>,
    /// The file of each module.
    modules: HashMap<Path, usize>,
    /// The path that each `use` imports, by the full path of the name that it defines.
    imports: HashMap<Path, Path>,
}

struct File {
    name: String,
    module: Path,
    mentions: Vec<Mention>,
}

impl File {
    /// The top module that the file belongs to. `None` for lib.rs.
    fn top(&self) -> Option<&str> {
        let top = self.name.split_once('/').map_or(self.name.as_str(), |(folder, _)| folder);
        match top {
            "lib.rs" => None,
            MAIN => Some(MAIN),
            top => Some(top.strip_suffix(".rs").unwrap_or(top)),
        }
    }
}

impl Tree {
    fn read(files: &[(String, String)]) -> Result<Self> {
        let mut tree = Self { files: Vec::new(), modules: HashMap::new(), imports: HashMap::new() };
        let (mut imports, mut read) = (Vec::new(), Vec::new());
        let mut tests = BTreeSet::new();
        for (name, source) in files {
            let module = module_of(name);
            let names = names::read(source, &module).map_err(|error| {
                anyhow::anyhow!("{name}:{}: cannot parse this Rust file: {error}", error.span().start().line)
            })?;
            tests.extend(names.test_modules.iter().cloned());
            read.push((name, module, names));
        }
        for (name, module, names) in read {
            let is_test = name.split('/').any(|part| part == "tests" || part == "tests.rs")
                || tests.iter().any(|test| module.starts_with(test));
            if is_test {
                continue;
            }
            for module in names.inline_modules.into_iter().chain([module.clone()]) {
                tree.modules.insert(module, tree.files.len());
            }
            imports.extend(names.imports);
            tree.files.push(File { name: name.clone(), module, mentions: names.mentions });
        }
        for import in imports {
            let path = tree.below_child(&import.path, &import.module);
            tree.imports.insert(join(&import.module, &import.name), path);
        }
        Ok(tree)
    }

    /// Completes a path that begins with a child module of `module`.
    fn below_child(&self, path: &[String], module: &[String]) -> Path {
        let child = join(module, &path[0]);
        if self.modules.contains_key(&child) { [&child, &path[1..]].concat() } else { path.to_vec() }
    }

    /// Resolves a path of a file. Its first segment may be a child module, or a name that the file imports.
    fn meant(&self, mention: &Mention) -> Path {
        let path = self.below_child(&mention.path, &mention.module);
        match self.imports.get(&join(&mention.module, &path[0])) {
            Some(import) => [import, &path[1..]].concat(),
            None => path,
        }
    }

    /// The file that a path leads to. A file may use items that its parent modules define. If a parent module
    /// re-exports the name, it is the file that defines the name.
    fn imported(&self, from: &File, path: Path) -> Option<usize> {
        // Imports can form a cycle if names repeat.
        const STEPS: usize = 16;
        let mut path = path;
        for _ in 0..STEPS {
            let lengths = (1..=path.len()).rev();
            let (length, to) =
                lengths.filter_map(|length| Some((length, *self.modules.get(&path[..length])?))).next()?;
            if !from.module.starts_with(&self.files[to].module) {
                return Some(to);
            }
            let import = self.imports.get(path.get(..=length)?)?;
            path = [import, &path[length + 1..]].concat();
        }
        None
    }

    /// The names in a file that its module may not use, the first of each kind.
    fn misplaced(&self, file: &File) -> Vec<Problem> {
        let Some(own) = file.top() else { return Vec::new() };
        let mut found = BTreeMap::new();
        for mention in &file.mentions {
            let path = self.meant(mention);
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let problem = |what, advice: &str| Problem {
                file: file.name.clone(),
                line: mention.line,
                what,
                advice: advice.to_owned(),
            };
            if let ["crate", other, ..] = path[..]
                && let (Some(place), Some(of_other)) = (place(own), place(other))
                && own != other
                && place <= of_other
            {
                let stands = if place == of_other { "beside" } else { "above" };
                found.entry(other.to_owned()).or_insert_with(|| {
                    problem(
                        format!("{own} imports {other}, which is {stands} it"),
                        "move what both need into a module below them, or let the caller pass it in",
                    )
                });
            }
            for rule in RULES.iter().filter(|rule| (rule.matches)(&path) && !(rule.is_allowed_in)(own)) {
                found
                    .entry(rule.advice.to_owned())
                    .or_insert_with(|| problem(format!("{own} uses {}", path.join("::")), rule.advice));
            }
        }
        found.into_values().collect()
    }

    /// Modules that are missing in the order.
    fn without_place(&self) -> Vec<Problem> {
        let mut found = BTreeMap::new();
        for file in &self.files {
            if let Some(top) = file.top().filter(|top| place(top).is_none()) {
                found.entry(top).or_insert_with(|| Problem {
                    file: file.name.clone(),
                    line: 1,
                    what: format!("{top} has no place in the order of the modules"),
                    advice: "add it to ORDER in xtask/src/layers.rs, or move its files into a module that is there"
                        .to_owned(),
                });
            }
        }
        found.into_values().collect()
    }

    /// Files of one module that import each other. A re-export does not count as an import.
    fn circles(&self) -> Vec<Problem> {
        let mut arrows: Vec<BTreeMap<usize, usize>> = Vec::new();
        for file in &self.files {
            let mut arrows_of_file = BTreeMap::new();
            for mention in file.mentions.iter().filter(|mention| !mention.is_reexport) {
                if let Some(to) = self.imported(file, self.meant(mention))
                    && self.files[to].top() == file.top()
                {
                    arrows_of_file.entry(to).or_insert(mention.line);
                }
            }
            arrows.push(arrows_of_file);
        }
        let reached: Vec<BTreeSet<usize>> = (0..arrows.len()).map(|from| reachable(&arrows, from)).collect();
        let mut problems = Vec::new();
        for first in 0..arrows.len() {
            let circle: Vec<usize> =
                reached[first].iter().copied().filter(|other| reached[*other].contains(&first)).collect();
            // Report the cycle once, at its first file.
            if circle.first() != Some(&first) {
                continue;
            }
            let inside = |from: &usize| {
                let to = arrows[*from].iter().filter(|(to, _)| circle.contains(to));
                to.map(|(to, line)| (*from, *to, *line)).collect::<Vec<_>>()
            };
            let arrows: Vec<(usize, usize, usize)> = circle.iter().flat_map(inside).collect();
            let list: Vec<_> = arrows
                .iter()
                .map(|(from, to, line)| {
                    format!("\n      {}:{line} names {}", self.files[*from].name, self.files[*to].name)
                })
                .collect();
            problems.push(Problem {
                file: self.files[first].name.clone(),
                line: arrows[0].2,
                what: format!("{} files import each other in a cycle", circle.len()),
                advice: format!(
                    "move what they share into a file that imports none of them{}",
                    list.concat()
                ),
            });
        }
        problems
    }
}

/// All files that one or more arrows lead to.
fn reachable(arrows: &[BTreeMap<usize, usize>], from: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        open.extend(arrows[at].keys().filter(|to| reached.insert(**to)));
    }
    reached
}

fn place(module: &str) -> Option<usize> {
    ORDER.iter().position(|row| row.contains(&module))
}

/// The module that is in a file of the crate.
fn module_of(file: &str) -> Path {
    let file = file.strip_suffix(".rs").unwrap_or(file);
    let mut module = vec!["crate".to_owned()];
    module.extend(file.split('/').map(str::to_owned));
    module.pop_if(|last| ["mod", "lib", "main"].contains(&last.as_str()));
    module
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problems of these files, without the advice.
    fn of(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> = files.iter().map(|(name, source)| ((*name).into(), (*source).into())).collect();
        let problems = problems(&files).expect("the sources are Rust");
        problems
            .iter()
            .map(|problem| format!("{}:{}: {}", problem.file, problem.line, problem.what))
            .collect()
    }

    #[test]
    fn a_clean_tree_has_no_problems() {
        let files = [
            ("lib.rs", "pub mod text;\npub mod kernel;\npub mod model;"),
            ("main.rs", "use pidns_user::commands;\nuse std::process::ExitCode;"),
            ("text.rs", "pub struct Name;"),
            ("kernel/mod.rs", "mod load;\npub use load::Loaded;\npub struct Error;"),
            ("kernel/load.rs", "use super::Error;\nuse aya::Ebpf;\nuse pidns_ebpf::abi::names;"),
            ("model/mod.rs", "use crate::{kernel::Loaded, text};\nmod world;"),
            ("model/world.rs", "use super::super::text::Name;"),
            ("commands/mod.rs", "use crate::cli::Cli;\nfn f() { println!(); std::process::exit(1) }"),
            ("cli/mod.rs", "use clap::Parser;\npub struct Cli;"),
        ];
        assert_eq!(of(&files), [""; 0]);
    }

    #[test]
    fn an_import_from_above_is_refused() {
        let files = [
            ("kernel/mod.rs", "use crate::text;\nfn f() { crate::model::world::g() }"),
            ("kernel/btf/file.rs", "use super::super::super::{text::Name, output};"),
            ("model/world.rs", ""),
            ("output/mod.rs", ""),
            ("text.rs", ""),
        ];
        assert_eq!(
            of(&files),
            [
                "kernel/btf/file.rs:1: kernel imports output, which is above it",
                "kernel/mod.rs:2: kernel imports model, which is above it"
            ]
        );
    }

    #[test]
    fn modules_of_one_row_may_not_import_each_other() {
        let files =
            [("text.rs", "use crate::signals::signal_name;"), ("signals.rs", "pub fn signal_name() {}")];
        assert_eq!(of(&files), ["text.rs:1: text imports signals, which is beside it"]);
    }

    #[test]
    fn a_module_outside_the_order_is_refused() {
        let files = [("resync.rs", "use crate::text;"), ("text.rs", "")];
        assert_eq!(of(&files), ["resync.rs:1: resync has no place in the order of the modules"]);
    }

    #[test]
    fn files_that_import_each_other_are_a_circle() {
        let files = [
            ("kernel/mod.rs", "mod attach;\nmod load;\nmod sweep;\npub use load::LoadError;"),
            ("kernel/attach.rs", "use super::LoadError;"),
            ("kernel/load.rs", "use super::sweep;\nfn f() { sweep::g() }\npub struct LoadError;"),
            ("kernel/sweep.rs", "use crate::kernel::attach::Plan;"),
        ];
        assert_eq!(of(&files), ["kernel/attach.rs:1: 3 files import each other in a cycle"]);
    }

    #[test]
    fn a_file_may_use_the_items_of_its_parent_module() {
        let files = [
            ("model/world.rs", "mod family;\nuse family::Heir;\nstruct World;"),
            ("model/world/family.rs", "use super::World;"),
        ];
        assert_eq!(of(&files), [""; 0]);
    }

    #[test]
    fn restricted_names_are_refused_in_other_modules() {
        let files = [
            ("model/mod.rs", "use pidns_ebpf::abi::record;\nfn f() { eprintln!() }"),
            ("output/mod.rs", "use std::process;\nfn f() { process::exit(1) }"),
            ("commands/mod.rs", "#[derive(clap::Args)] struct Args;\nuse aya::Ebpf;"),
        ];
        assert_eq!(
            of(&files),
            [
                "commands/mod.rs:1: commands uses clap::Args",
                "commands/mod.rs:2: commands uses aya::Ebpf",
                "model/mod.rs:1: model uses pidns_ebpf::abi::record",
                "model/mod.rs:2: model uses eprintln!",
                "output/mod.rs:2: output uses std::process::exit"
            ]
        );
    }

    #[test]
    fn tests_may_import_anything() {
        let files = [
            ("text.rs", "#[cfg(test)]\nmod tests { use crate::model; fn f() { println!() } }"),
            ("model/mod.rs", "#[cfg(test)]\nmod fakes;"),
            ("model/fakes.rs", "use crate::commands;"),
            ("model/world/tests.rs", "use crate::commands;"),
            ("model/world/tests/orphans.rs", "use crate::commands;"),
            ("commands/mod.rs", ""),
        ];
        assert_eq!(of(&files), [""; 0]);
    }
}
