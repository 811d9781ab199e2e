//! `pid`: one process at every level.

use std::{io, sync::Arc};

use serde::Serialize;

use super::{
    JsonForm,
    columns::{self, Cell},
    document,
    fields::{Chosen, Fields, fields},
    fit::{Cut, Leave, Room},
    screen::Screen,
};
use crate::{
    event::container::Container,
    event::identity::NsInum,
    event::snapshot::{SnapshotProcess, SnapshotSource},
    event::{INITIAL_NS, VERSION},
};

fields! {
    /// The fields that `pid` shows of a level.
    pub enum Field, usual [Level, Ns, Container, Pid], room;
    /// Its number.
    Level "level" "LEVEL" Left ["level"],
    /// The namespace there.
    Ns "ns" "NAMESPACE" Left ["ns"],
    /// What the PID 1 of that namespace runs in.
    Container "container" "CONTAINER" Left ["container"],
    /// The PID there.
    Pid "pid" "PID" Right ["pid"],
}

fn room(field: Field) -> Room {
    match field {
        Field::Container => Room::from(8, 16, Cut::End, Leave::Late(1)),
        Field::Level | Field::Ns | Field::Pid => Room::whole(Leave::Stays),
    }
}

/// A process at one level.
#[derive(Debug, Serialize)]
pub struct Level {
    /// The level.
    pub level: usize,
    /// Inode number of its namespace there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns: Option<NsInum>,
    /// What the PID 1 of that namespace runs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Arc<Container>>,
    /// Its PID there.
    pub pid: u32,
}

/// Writes the table: a line a level. Where some are left out, one more line counts them.
pub fn table(
    levels: &[Level],
    is_all: bool,
    fields: &Fields<Field>,
    headings: bool,
    screen: Screen,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let mut rows = Vec::with_capacity(levels.len() + 1);
    for Level { level, ns, container, pid } in levels {
        let text = |field| match field {
            Field::Level => level.to_string(),
            Field::Ns => ns.map_or_else(|| "?".to_owned(), |ns| ns.to_string()),
            Field::Container => match container {
                Some(container) => container.label().for_terminal().to_string(),
                None if *ns == Some(INITIAL_NS) => "host".to_owned(),
                None => "-".to_owned(),
            },
            Field::Pid => pid.to_string(),
        };
        rows.push(fields.row(|field| Cell::from(text(field))));
    }
    if !is_all {
        rows.push(fields.row(|_| Cell::from("?".to_owned())));
    }
    columns::write(&fields.columns(), &rows, headings, screen, to)
}

#[derive(Serialize)]
struct LevelsDocument<'a> {
    v: u8,
    source: SnapshotSource,
    process: &'a SnapshotProcess,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<u32>,
    levels: Vec<Chosen<&'a Level>>,
}

/// Writes one document, about a process, or about a thread of it by its number at level 0.
pub fn json(
    (source, process, thread): (SnapshotSource, &SnapshotProcess, Option<u32>),
    levels: &[Level],
    fields: Option<&Fields<Field>>,
    form: JsonForm,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let levels = levels.iter().map(|level| Chosen::of(level, fields)).collect();
    document(&LevelsDocument { v: VERSION, source, process, thread, levels }, form, to)
}
