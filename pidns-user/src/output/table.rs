//! The stream as people read it: a line an event.

use std::{
    collections::VecDeque,
    fmt::{self, Display, Write as _},
    io, iter,
};

use jiff::{ZonedDateTime, tz::TimeZone};

use unicode_width::UnicodeWidthStr as _;

use super::{
    View,
    columns::Side,
    fields::{Field as _, Fields, fields},
    fit::{Cut, GAP, Leave, Room, fit, shorten},
    rows::{Row, row},
    screen::{Paint, Screen},
};
use crate::{
    event::container::Container,
    event::identity::ProcessKey,
    event::{Body, Event},
};

fields! {
    /// The fields that the stream shows of an event.
    pub enum Field, usual [Time, Event, Ns, Level, Pids, Comm, Container, Detail], room;
    /// When it happened, by the clock of this machine.
    Time "time" "TIME" Left [],
    /// What happened.
    Event "event" "EVENT" Left [],
    /// Of which namespace.
    Ns "ns" "NS" Left [],
    /// Its level.
    Level "level" "LVL" Right [],
    /// The PIDs of the process at all levels.
    Pids "pids" "PIDS" Left [],
    /// Its PID at level 0.
    Pid "pid" "PID" Right [],
    /// Its parent's.
    Ppid "ppid" "PPID" Right [],
    /// Its user.
    Uid "uid" "UID" Right [],
    /// Its name.
    Comm "comm" "COMM" Left [],
    /// What it runs in.
    Container "container" "CONTAINER" Left [],
    /// All else.
    Detail "detail" "DETAIL" Left [],
}

fn room(field: Field) -> Room {
    match field {
        Field::Level => Room::whole(Leave::Soon(1)),
        // Where it is gone, the container's column has it of what is in no container.
        Field::Ns => Room::whole(Leave::Soon(2)),
        Field::Time => Room::from(8, 12, Cut::Fraction, Leave::Late(2)),
        Field::Event => Room::from(11, 13, Cut::End, Leave::Stays),
        Field::Pids => Room::from(9, 14, Cut::Middle, Leave::Late(4)),
        Field::Comm => Room::from(8, 15, Cut::End, Leave::Late(3)),
        Field::Container => Room::from(12, 16, Cut::End, Leave::Late(1)),
        Field::Detail => Room::from(16, 28, Cut::End, Leave::Stays),
        Field::Pid | Field::Ppid | Field::Uid => Room::whole(Leave::Stays),
    }
}

/// Columns that its texts take at most, as a rule.
fn usual_width(field: Field) -> usize {
    match field {
        Field::Time => 12,
        Field::Event => 13,
        Field::Ns => 10,
        Field::Level => 3,
        Field::Pids => 14,
        Field::Pid | Field::Ppid => 7,
        Field::Uid => 6,
        Field::Comm => 15,
        Field::Container => 16,
        Field::Detail => 0,
    }
}

/// Inits whose own fork may still come: it follows at once, but for what other processors do in between.
const AWAITED_FORKS: usize = 64;

/// A table whose columns have fixed widths, as later rows are not known.
#[derive(Debug)]
pub struct Table {
    zone: TimeZone,
    screen: Screen,
    headings: bool,
    columns: Vec<(Field, usize)>,
    /// Inits that were shown, and whose fork is the same fact.
    inits: VecDeque<ProcessKey>,
    line: String,
}

impl Table {
    /// Times are shown in `zone`.
    pub fn new(zone: TimeZone, fields: &Fields<Field>, headings: bool, screen: Screen) -> Self {
        Self {
            zone,
            screen,
            headings,
            columns: columns(fields, screen.width),
            inits: VecDeque::new(),
            line: String::new(),
        }
    }

    /// Whether the event is the fork of an init that has a line already.
    fn has_line(&mut self, body: &Body) -> bool {
        match body {
            Body::NamespaceInit { process, .. } => {
                self.inits.truncate(AWAITED_FORKS - 1);
                self.inits.push_front(process.key());
                false
            }
            Body::ProcessFork { process, .. } if process.is_nested_init() => {
                let at = self.inits.iter().position(|init| *init == process.key());
                at.and_then(|at| self.inits.remove(at)).is_some()
            }
            _ => false,
        }
    }
}

/// Which columns there are, and how wide.
fn columns(fields: &Fields<Field>, width: Option<usize>) -> Vec<(Field, usize)> {
    let Some(width) = width else { return fields.iter().map(|field| (field, usual_width(field))).collect() };
    let rooms: Vec<Room> = fields.columns().iter().map(|column| column.room).collect();
    let natural = fields.iter().map(|field| match field {
        // As much as there is.
        Field::Detail => width,
        Field::Pids => 24,
        Field::Container => 32,
        field => usual_width(field),
    });
    let widths = fit(&natural.collect::<Vec<_>>(), &rooms, width);
    fields.iter().zip(widths).filter_map(|(field, width)| Some((field, width?))).collect()
}

impl View for Table {
    fn begin(&mut self, to: &mut dyn io::Write) -> io::Result<()> {
        if !self.headings {
            return Ok(());
        }
        let heading = |field: Field, line: &mut String| line.push_str(field.heading());
        self.write_line(heading, |_| Paint::Bold, to)
    }

    fn event(
        &mut self,
        _seq: u64,
        event: &Event,
        container: Option<&Container>,
        to: &mut dyn io::Write,
    ) -> io::Result<()> {
        if self.has_line(&event.body) {
            return Ok(());
        }
        let Some(Row { label, paint, ns, process, detail }) = row(&event.body) else { return Ok(()) };
        let has = |field| self.columns.iter().any(|&(shown, _)| shown == field);
        let has_ns = has(Field::Ns);
        // On a narrow terminal nothing else would show its subject.
        let about = ns.filter(|_| process.is_none() && !has_ns && !has(Field::Container));
        let zone = self.zone.clone();
        let cell = |field: Field, line: &mut String| {
            // Writing to memory does not fail.
            let _ = match field {
                Field::Time => {
                    let time = ZonedDateTime::new(event.time, zone.clone());
                    write!(line, "{}", time.strftime("%H:%M:%S%.3f"))
                }
                Field::Event => line.write_str(label),
                Field::Ns => or_dash(line, ns.map(|(inum, _)| inum)),
                Field::Level => or_dash(line, ns.and_then(|(_, level)| level)),
                Field::Pids => match process {
                    Some(process) => write_pids(line, &process.pids),
                    None => line.write_str("-"),
                },
                Field::Pid => or_dash(line, process.map(|process| process.pid)),
                Field::Ppid => or_dash(line, process.and_then(|process| process.ppid)),
                Field::Uid => or_dash(line, process.map(|process| process.uid)),
                Field::Comm => or_dash(line, process.map(|process| process.comm.for_terminal())),
                Field::Container => {
                    let container = process.and_then(|process| process.container.as_deref()).or(container);
                    match (container, ns) {
                        (Some(container), _) => write!(line, "{}", container.label().for_terminal()),
                        (None, Some((inum, _))) if !has_ns => write!(line, "{inum}"),
                        (None, _) => line.write_str("-"),
                    }
                }
                Field::Detail => {
                    let about = about.map(|(inum, _)| format!("{inum} ")).unwrap_or_default();
                    write!(line, "{about}{detail}{}", if event.exact { "" } else { " ~" })
                }
            };
        };
        let paint = |field| if field == Field::Event { paint } else { Paint::None };
        self.write_line(cell, paint, to)
    }
}

impl Table {
    /// Writes a line: each column's text is written behind what is there, and shortened where there is no room for it.
    fn write_line(
        &mut self,
        cell: impl Fn(Field, &mut String),
        paint: impl Fn(Field) -> Paint,
        to: &mut dyn io::Write,
    ) -> io::Result<()> {
        let Self { columns, line, screen, .. } = self;
        line.clear();
        // Blanks are owed until a text follows.
        let mut blanks = 0;
        for (at, &(field, width)) in columns.iter().enumerate() {
            blanks += if at == 0 { 0 } else { GAP };
            let (on, off) = paint(field).codes(screen.style);
            let before = line.len();
            line.extend(iter::repeat_n(' ', blanks));
            line.push_str(on);
            let start = line.len();
            cell(field, line);
            let mut taken = line[start..].width();
            if screen.width.is_some() && taken > width {
                let short = shorten(&line[start..], width, field.room().cut).into_owned();
                taken = short.width();
                line.truncate(start);
                line.push_str(&short);
            }
            let padding = width.saturating_sub(taken);
            if taken == 0 {
                line.truncate(before);
                blanks += padding;
                continue;
            }
            line.push_str(off);
            blanks = match field.side() {
                Side::Left => padding,
                Side::Right => {
                    line.insert_str(before, &" ".repeat(padding));
                    0
                }
            };
        }
        line.push('\n');
        to.write_all(line.as_bytes())
    }
}

fn or_dash(line: &mut String, fact: Option<impl Display>) -> fmt::Result {
    match fact {
        Some(fact) => write!(line, "{fact}"),
        None => line.write_str("-"),
    }
}

fn write_pids(line: &mut String, pids: &[u32]) -> fmt::Result {
    for (at, pid) in pids.iter().enumerate() {
        write!(line, "{}{pid}", if at == 0 { "" } else { " → " })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
