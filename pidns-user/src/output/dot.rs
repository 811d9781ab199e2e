//! `tree -o dot`: writes the forest of namespaces for Graphviz.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
};

use super::{
    forest::{NAMED, held_by},
    phrases::{Duration, who},
};
use crate::{
    event::identity::NsInum,
    event::snapshot::{Holder, Snapshot},
    model::{Entry, Forest, Node, Origin},
    text::Count,
};

/// Writes the graph of these namespaces: solid arrows to child namespaces; dashed ones from the holders of an empty
/// namespace, and from the namespace that joined processes came from.
pub fn graph(
    snapshot: &Snapshot,
    forest: &Forest<'_>,
    from: Option<&[NsInum]>,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let walk = forest.walk(from);
    let shown: BTreeSet<NsInum> = walk.iter().map(|(_, node)| node.namespace.inum).collect();
    writeln!(to, "digraph pidns {{\n  rankdir=LR;\n  node [shape=box];")?;
    for (_, node) in &walk {
        let inum = node.namespace.inum;
        writeln!(to, "  ns{inum} [label={}];", Quoted(&label(snapshot, node)))?;
        for child in &node.children {
            writeln!(to, "  ns{inum} -> ns{child};")?;
        }
        for (origin, count) in origins(forest, node) {
            if shown.contains(&origin) {
                writeln!(
                    to,
                    "  ns{origin} -> ns{inum} [style=dashed, constraint=false, label=\"{count} joined\"];"
                )?;
            }
        }
        if node.members.is_empty() {
            holders(node, to)?;
        }
    }
    writeln!(to, "}}")
}

fn label(snapshot: &Snapshot, node: &Node<'_>) -> Vec<String> {
    let mut lines = vec![node.namespace.inum.to_string()];
    let container = node.namespace.container.as_ref();
    lines.extend(container.map(|container| container.label().for_terminal().to_string()));
    lines.extend(node.init().map(who));
    lines.push(Count(node.members.len() as u64, "process", "processes").to_string());
    let zombies = node.zombies() as u64;
    if zombies > 0 {
        lines.push(Count(zombies, "zombie", "zombies").to_string());
    }
    if node.namespace.dying {
        lines.push("dying".to_owned());
    }
    let born = node.namespace.born_boot_ns;
    lines.extend(born.map(|born| format!("up {}", Duration(snapshot.boot_ns.saturating_since(born)))));
    lines
}

/// Joined processes, counted by the namespace of their parents.
fn origins(forest: &Forest<'_>, node: &Node<'_>) -> BTreeMap<NsInum, u64> {
    let mut origins = BTreeMap::new();
    for process in &node.members {
        if let Entry::Joined { origin: Some(Origin { ns: Some(from), .. }), .. } = forest.entry(process) {
            *origins.entry(from).or_default() += 1;
        }
    }
    origins
}

/// Writes the holders of an empty namespace. Nested namespaces are omitted: they have an arrow.
fn holders(node: &Node<'_>, to: &mut dyn io::Write) -> io::Result<()> {
    let inum = node.namespace.inum;
    let outside = node.holders.iter().filter(|holder| !matches!(holder, Holder::Child { .. }));
    let mut notes: Vec<String> = outside.map(|holder| held_by(holder)).collect();
    let more = (notes.len().saturating_sub(NAMED) as u64).saturating_add(node.holders_left_out);
    notes.truncate(NAMED);
    if more > 0 {
        notes.push(format!("{more} more"));
    }
    if notes.is_empty() && node.children.is_empty() {
        notes.push("an unknown holder".to_owned());
    }
    for (index, note) in notes.into_iter().enumerate() {
        writeln!(to, "  holder{index}of{inum} [shape=note, label={}];", Quoted(&[note]))?;
        writeln!(to, "  holder{index}of{inum} -> ns{inum} [style=dashed];")?;
    }
    Ok(())
}

/// A quoted Graphviz string of these lines. Graphviz interprets backslashes (`\N` is the node's name) and HTML entities
/// (`&#8238;` would reverse the text), so both are escaped.
struct Quoted<'a>(&'a [String]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(|line| escaped(line)).collect();
        write!(f, "\"{}\"", lines.join("\\n"))
    }
}

fn escaped(line: &str) -> String {
    line.replace('&', "&amp;").replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        event::container::{Container, Runtime},
        event::identity::{BootNs, HostPid},
        event::snapshot::{SnapshotNamespace, SnapshotProcess, SnapshotSource, Unread},
        text::Name,
    };

    fn process(pids: &[u32], ppid: Option<u32>, ns: u32, comm: &str) -> SnapshotProcess {
        SnapshotProcess {
            pid: HostPid(pids[0]),
            pids: pids.to_vec(),
            comm: Some(Name::from(comm)),
            start_boot_ns: Some(BootNs(1_000_000_000)),
            ppid: ppid.map(HostPid),
            uid: Some(0),
            ns: Some(NsInum(ns)),
            state: Some('S'),
            threads: Some(1),
            ..SnapshotProcess::bare(HostPid(pids[0]))
        }
    }

    #[test]
    fn namespaces_holders_and_joined_processes_are_drawn() {
        let namespace = |inum, level, parent: Option<u32>| {
            let born_boot_ns = (inum != 30).then_some(BootNs(1_000_000_000));
            (
                NsInum(inum),
                SnapshotNamespace {
                    parent: parent.map(NsInum),
                    born_boot_ns,
                    ..SnapshotNamespace::bare(NsInum(inum), level)
                },
            )
        };
        let zombie = SnapshotProcess { state: Some('Z'), ..process(&[7, 3], Some(5), 20, "x") };
        let held = |fd| {
            (NsInum(30), Holder::Fd { pid: HostPid(1), comm: Some(Name::from("in\"it\\")), fd, tid: None })
        };
        let snapshot = Snapshot {
            source: SnapshotSource::Iterator,
            boot_ns: BootNs(31_000_000_000),
            processes: vec![
                process(&[1], None, 10, "init"),
                process(&[5, 1], Some(1), 20, "\x1b\"\\N"),
                process(&[6, 2], Some(1), 20, "sh"),
                zombie,
            ],
            namespaces: [namespace(10, 0, None), namespace(20, 1, Some(10)), namespace(30, 1, Some(10))]
                .into(),
            holders_left_out: [(NsInum(30), 20)].into(),
            holders: [held(4), held(5), held(6), held(7), (NsInum(10), Holder::Child { ns: NsInum(20) })]
                .into(),
            unnamed: Vec::new(),
            unread: Unread::default(),
        };
        let forest = Forest::new(&snapshot);
        let draw = |from| {
            let mut out = Vec::new();
            graph(&snapshot, &forest, from, &mut out).expect("memory");
            String::from_utf8(out).expect("text")
        };
        let expected = r#"digraph pidns {
  rankdir=LR;
  node [shape=box];
  ns10 [label="10\ninit[1]\n1 process\nup 30.00 s"];
  ns10 -> ns20;
  ns10 -> ns30;
  ns20 [label="20\n\\u{1b}\"\\\\N[5]\n3 processes\n1 zombie\nup 30.00 s"];
  ns10 -> ns20 [style=dashed, constraint=false, label="1 joined"];
  ns30 [label="30\n0 processes"];
  holder0of30 [shape=note, label="in\"it\\\\[1] fd 4"];
  holder0of30 -> ns30 [style=dashed];
  holder1of30 [shape=note, label="in\"it\\\\[1] fd 5"];
  holder1of30 -> ns30 [style=dashed];
  holder2of30 [shape=note, label="in\"it\\\\[1] fd 6"];
  holder2of30 -> ns30 [style=dashed];
  holder3of30 [shape=note, label="21 more"];
  holder3of30 -> ns30 [style=dashed];
}
"#;
        assert_eq!(draw(None), expected);
        assert!(!draw(Some(&[NsInum(20)])).contains("ns10"), "a target's parent is omitted");
    }

    /// Draws one namespace with one process and a container that have this name.
    fn named(name: &str) -> String {
        let runtime = Some(Runtime::Docker);
        let container = Container { runtime, name: Some(Name::from(name)), ..Container::default() };
        let namespace = SnapshotNamespace {
            container: Some(Arc::new(container)),
            ..SnapshotNamespace::bare(NsInum(20), 1)
        };
        let snapshot = Snapshot {
            source: SnapshotSource::Iterator,
            boot_ns: BootNs(0),
            processes: vec![process(&[5, 1], None, 20, name)],
            namespaces: [(NsInum(20), namespace)].into(),
            holders: Vec::new(),
            holders_left_out: BTreeMap::new(),
            unnamed: Vec::new(),
            unread: Unread::default(),
        };
        let mut out = Vec::new();
        graph(&snapshot, &Forest::new(&snapshot), None, &mut out).expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn label_shows_the_container_without_html_entities() {
        let drawn = named("a&#8238;&amp;b");
        let expected = r#"label="20\ndocker/a&amp;#8238;&amp;amp;b\na&amp;#8238;&amp;amp;b[5]\n1 process""#;
        assert!(drawn.contains(expected), "{drawn}");
    }

    #[test]
    fn name_cannot_end_a_label_or_start_an_escape() {
        let drawn = named("&#1;&lt;\"\\N|{}>");
        // The backslash is doubled for the terminal, and each of the two for Graphviz.
        let name = r#"&amp;#1;&amp;lt;\"\\\\N|{}>"#;
        let expected = format!(r#"label="20\ndocker/{name}\n{name}[5]\n1 process"];"#);
        assert!(drawn.contains(&expected), "{drawn}");
    }
}
