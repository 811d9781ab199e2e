//! `pid`: one process at every level.

use std::io;

use serde::Serialize;

use super::{
    Form, columns, document,
    fields::{Chosen, Fields, fields},
};
use crate::{
    event::VERSION,
    snapshot::{Process, Source},
};

fields! {
    /// What `pid` tells of a level.
    pub enum Field, usual [Level, Ns, Pid];
    /// Its number.
    Level "level" "LEVEL" Left ["level"],
    /// The namespace there.
    Ns "ns" "NAMESPACE" Left ["ns"],
    /// The PID there.
    Pid "pid" "PID" Right ["pid"],
}

/// The PID at each level: where they may not be read, that at level 0 alone.
fn pids(process: &Process) -> &[u32] {
    if process.pids.is_empty() { std::slice::from_ref(&process.pid) } else { &process.pids }
}

/// Writes the table: a line a level.
pub fn table(
    process: &Process,
    levels: &[Option<u32>],
    fields: &Fields<Field>,
    headings: bool,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let mut rows = Vec::with_capacity(levels.len() + 1);
    if headings {
        rows.push(fields.headings());
    }
    for (level, (pid, ns)) in pids(process).iter().zip(levels).enumerate() {
        rows.push(fields.row(|field| match field {
            Field::Level => level.to_string(),
            Field::Ns => ns.map_or_else(|| "?".to_owned(), |ns| ns.to_string()),
            Field::Pid => pid.to_string(),
        }));
    }
    if process.pids.is_empty() {
        // There may be more of them.
        rows.push(fields.row(|_| "?".to_owned()));
    }
    columns::write(&fields.sides(), &rows, to)
}

#[derive(Serialize)]
struct Document<'a> {
    v: u8,
    source: Source,
    process: &'a Process,
    levels: Vec<Chosen<Level>>,
}

#[derive(Serialize)]
struct Level {
    level: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    ns: Option<u32>,
    pid: u32,
}

/// Writes one document.
pub fn json(
    source: Source,
    process: &Process,
    levels: &[Option<u32>],
    fields: Option<&Fields<Field>>,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let levels = pids(process).iter().zip(levels).enumerate();
    let levels = levels.map(|(level, (&pid, &ns))| Chosen::of(Level { level, ns, pid }, fields)).collect();
    document(&Document { v: VERSION, source, process, levels }, Form::Indented, to)
}
