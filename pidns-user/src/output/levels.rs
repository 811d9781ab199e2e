//! `pid`: shows one process at every level.

use std::{io, sync::Arc};

use serde::Serialize;

use super::{
    JsonForm,
    columns::{self, Cell},
    document,
    fields::{Chosen, Fields, fields},
    fit::{Cut, Omit, WidthRule},
    screen::Screen,
};
use crate::{
    event::container::Container,
    event::identity::NsInum,
    event::snapshot::{SnapshotProcess, SnapshotSource},
    event::{INITIAL_NS, VERSION},
};

fields! {
    /// The fields of a level in `pid`.
    pub enum Field, usual [Level, Ns, Container, Pid], width_rule;
    /// The level.
    Level "level" "LEVEL" Left ["level"],
    /// The namespace there.
    Ns "ns" "NAMESPACE" Left ["ns"],
    /// The container of that namespace's PID 1.
    Container "container" "CONTAINER" Left ["container"],
    /// The PID there.
    Pid "pid" "PID" Right ["pid"],
}

fn width_rule(field: Field) -> WidthRule {
    match field {
        Field::Container => WidthRule::from(8, 16, Cut::End, Omit::Late(1)),
        Field::Level | Field::Ns | Field::Pid => WidthRule::fixed(Omit::Never),
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
    /// The container of that namespace's PID 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Arc<Container>>,
    /// Its PID there.
    pub pid: u32,
}

/// Writes the table: one line per level. If levels are unknown, a last line with question marks says so.
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

/// Writes one document about a process, or about one of its threads, given by TID at level 0.
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
