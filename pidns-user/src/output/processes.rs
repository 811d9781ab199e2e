//! `ps`: processes with their PIDs.

use std::{io, str::FromStr};

use serde::Serialize;

use super::{
    columns::{self, Side},
    table::{Duration, pids},
};
use crate::{
    event::VERSION,
    model::{Entry, Forest},
    snapshot::{Process, Snapshot, Source, Unread},
};

macro_rules! fields {
    ($($(#[doc = $doc:literal])* $field:ident $name:literal $heading:literal $side:ident,)*) => {
        /// A column of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field { $($(#[doc = $doc])* $field,)* }

        impl Field {
            /// The names of all.
            pub const NAMES: &[&str] = &[$($name,)*];

            fn of_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$field),)* _ => None }
            }

            fn heading(self) -> &'static str {
                match self { $(Self::$field => $heading,)* }
            }

            fn side(self) -> Side {
                match self { $(Self::$field => Side::$side,)* }
            }
        }
    };
}

fields! {
    /// The PID at level 0.
    Pid "pid" "PID" Right,
    /// The PIDs at all levels.
    Pids "pids" "PIDS" Left,
    /// The innermost namespace.
    Ns "ns" "NS" Right,
    /// Its level.
    Level "level" "LVL" Right,
    /// The parent at level 0.
    Ppid "ppid" "PPID" Right,
    /// The user.
    Uid "uid" "UID" Right,
    /// The state.
    State "state" "S" Left,
    /// Threads.
    Threads "threads" "THR" Right,
    /// Since when it exists.
    Age "age" "AGE" Right,
    /// How it got in.
    Entry "entry" "ENTRY" Left,
    /// The name.
    Comm "comm" "COMM" Left,
}

const DEFAULT: [Field; 7] =
    [Field::Ns, Field::Level, Field::Pids, Field::State, Field::Age, Field::Comm, Field::Entry];

/// Columns: of a list like `pids,comm`, those; `+uid` adds to the usual ones, or to what stands before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields(Vec<Field>);

impl Default for Fields {
    fn default() -> Self {
        Self(DEFAULT.to_vec())
    }
}

impl FromStr for Fields {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut fields = if text.starts_with('+') { DEFAULT.to_vec() } else { Vec::new() };
        for name in text.split(',') {
            let name = name.trim().trim_start_matches('+');
            let field = Field::of_name(name).ok_or_else(|| {
                format!("there is no field {name:?}; give some of {}", Field::NAMES.join(","))
            })?;
            if !fields.contains(&field) {
                fields.push(field);
            }
        }
        Ok(Self(fields))
    }
}

/// Writes the table of these processes.
pub fn table(
    snapshot: &Snapshot,
    forest: &Forest<'_>,
    processes: &[&Process],
    Fields(fields): &Fields,
    headings: bool,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let mut rows = Vec::with_capacity(processes.len() + 1);
    if headings {
        rows.push(fields.iter().map(|field| field.heading().to_owned()).collect());
    }
    for process in processes {
        rows.push(fields.iter().map(|field| cell(*field, process, snapshot, forest)).collect());
    }
    let sides: Vec<Side> = fields.iter().map(|field| field.side()).collect();
    columns::write(&sides, &rows, to)
}

fn cell(field: Field, process: &Process, snapshot: &Snapshot, forest: &Forest<'_>) -> String {
    fn known<T: ToString>(fact: Option<T>) -> String {
        fact.map_or_else(|| "?".to_owned(), |fact| fact.to_string())
    }
    match field {
        Field::Pid => process.pid.to_string(),
        Field::Pids if process.pids.is_empty() => format!("{} → ?", process.pid),
        Field::Pids => pids(&process.pids),
        Field::Ns => known(process.ns),
        Field::Level => known(process.level()),
        Field::Ppid if process.state.is_some() && process.ppid.is_none() => "-".to_owned(),
        Field::Ppid => known(process.ppid),
        Field::Uid => known(process.uid),
        Field::State => known(process.state),
        Field::Threads => known(process.threads),
        Field::Age => {
            known(process.start_boot_ns.map(|start| Duration(snapshot.boot_ns.saturating_sub(start))))
        }
        Field::Comm => process.name(),
        Field::Entry => match forest.entry(process) {
            Entry::Born if process.is_zombie() => "zombie".to_owned(),
            Entry::Born => String::new(),
            Entry::Joined { parent, from } => format!(
                "{}joined: forked by {}[{}]{}",
                if process.is_zombie() { "zombie, " } else { "" },
                parent.name(),
                parent.pid,
                from.map(|from| format!(" in {from}")).unwrap_or_default()
            ),
            Entry::Unknown => "?".to_owned(),
        },
    }
}

#[derive(Serialize)]
struct Document<'a> {
    v: u8,
    source: Source,
    boot_ns: u64,
    processes: Vec<Line<'a>>,
    unread: Unread,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    process: &'a Process,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zombie: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    joined: Option<bool>,
}

/// Writes one document.
pub fn json(
    snapshot: &Snapshot,
    forest: &Forest<'_>,
    processes: &[&Process],
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let processes = processes.iter().map(|process| Line {
        process,
        level: process.level(),
        zombie: process.state.map(|_| process.is_zombie()),
        joined: match forest.entry(process) {
            Entry::Born => Some(false),
            Entry::Joined { .. } => Some(true),
            Entry::Unknown => None,
        },
    });
    let processes = processes.collect();
    let Snapshot { source, boot_ns, unread, .. } = snapshot;
    super::document(
        &Document { v: VERSION, source: *source, boot_ns: *boot_ns, processes, unread: *unread },
        to,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_replace_the_usual_ones_or_add_to_them() {
        let fields = |text: &str| text.parse::<Fields>().map(|Fields(fields)| fields);
        assert_eq!(fields("comm,pid"), Ok(vec![Field::Comm, Field::Pid]));
        assert_eq!(fields("+uid"), Ok([&DEFAULT[..], &[Field::Uid]].concat()));
        assert_eq!(fields("pid,+uid,pid"), Ok(vec![Field::Pid, Field::Uid]));
        for bad in ["", "pid,,uid", "PID", "+", "nope"] {
            let error = fields(bad).expect_err(bad);
            assert!(error.contains("no field") && error.contains("pids,ns"), "{error}");
        }
    }
}
