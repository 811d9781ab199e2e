//! `pid`: one process at every level.

use std::io;

use serde::Serialize;

use super::columns::{self, Side};
use crate::{
    event::VERSION,
    snapshot::{Process, Source},
};

/// The PID at each level: where they may not be read, that at level 0 alone.
fn pids(process: &Process) -> &[u32] {
    if process.pids.is_empty() { std::slice::from_ref(&process.pid) } else { &process.pids }
}

/// Writes the table: a line a level.
pub fn table(
    process: &Process,
    levels: &[Option<u32>],
    headings: bool,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let mut rows = Vec::with_capacity(levels.len() + 1);
    if headings {
        rows.push(["LEVEL", "NAMESPACE", "PID"].map(str::to_owned).to_vec());
    }
    for (level, (pid, ns)) in pids(process).iter().zip(levels).enumerate() {
        let ns = ns.map_or_else(|| "?".to_owned(), |ns| ns.to_string());
        rows.push(vec![level.to_string(), ns, pid.to_string()]);
    }
    if process.pids.is_empty() {
        // There may be more of them.
        rows.push(vec!["?".to_owned(); 3]);
    }
    columns::write(&[Side::Left, Side::Left, Side::Right], &rows, to)
}

#[derive(Serialize)]
struct Document<'a> {
    v: u8,
    source: Source,
    process: &'a Process,
    levels: Vec<Level>,
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
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let levels = pids(process).iter().zip(levels).enumerate();
    let levels = levels.map(|(level, (&pid, &ns))| Level { level, ns, pid }).collect();
    super::document(&Document { v: VERSION, source, process, levels }, to)
}
