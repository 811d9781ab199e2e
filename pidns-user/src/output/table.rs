//! The stream for people: one line per event.

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
    fit::{Cut, GAP, Omit, WidthRule, fit, shorten},
    rows::{Row, row},
    screen::{Paint, Screen},
};
use crate::{
    event::container::Container,
    event::identity::ProcessKey,
    event::{Body, Event},
};

fields! {
    /// The fields of an event in the stream's table.
    pub enum Field, usual [Time, Event, Ns, Level, Pids, Comm, Container, Detail], width_rule;
    /// When it happened, in local time.
    Time "time" "TIME" Left [],
    /// What happened.
    Event "event" "EVENT" Left [],
    /// Its namespace.
    Ns "ns" "NS" Left [],
    /// Its level.
    Level "level" "LVL" Right [],
    /// The PIDs of the process at all levels.
    Pids "pids" "PIDS" Left [],
    /// Its PID at level 0.
    Pid "pid" "PID" Right [],
    /// PID of its parent.
    Ppid "ppid" "PPID" Right [],
    /// Its user.
    Uid "uid" "UID" Right [],
    /// Its name.
    Comm "comm" "COMM" Left [],
    /// The container.
    Container "container" "CONTAINER" Left [],
    /// Everything else.
    Detail "detail" "DETAIL" Left [],
}

fn width_rule(field: Field) -> WidthRule {
    match field {
        Field::Level => WidthRule::fixed(Omit::Early(1)),
        // If this column is omitted, the container's column shows the namespace of processes without a container.
        Field::Ns => WidthRule::fixed(Omit::Early(2)),
        Field::Time => WidthRule::from(8, 12, Cut::Fraction, Omit::Late(3)),
        Field::Event => WidthRule::from(11, 13, Cut::End, Omit::Never),
        Field::Pids => WidthRule::from(9, 14, Cut::Middle, Omit::Late(4)),
        Field::Comm => WidthRule::from(8, 15, Cut::End, Omit::Late(1)),
        Field::Container => WidthRule::from(12, 16, Cut::End, Omit::Late(2)),
        // "ignored SIGTERM from runc…" needs this much.
        Field::Detail => WidthRule::from(26, 28, Cut::End, Omit::Never),
        Field::Pid | Field::Ppid | Field::Uid => WidthRule::fixed(Omit::Never),
    }
}

/// Width that fits most texts of the column.
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

/// Largest width to which a column grows on a wide terminal, or in a pipe with the first text that needs it.
fn most_width(field: Field) -> usize {
    match field {
        Field::Pids => 24,
        Field::Container => 32,
        field => usual_width(field),
    }
}

/// Maximum number of inits whose fork event is still expected. It follows directly, with only events of other CPUs
/// between.
const AWAITED_FORKS: usize = 64;

/// A table with fixed column widths, because later rows are unknown. In a pipe a column grows with the first long text,
/// so that later rows are in line with it.
#[derive(Debug)]
pub struct Table {
    zone: TimeZone,
    screen: Screen,
    headings: bool,
    columns: Vec<(Field, usize)>,
    /// Inits that already have a line. Their fork event reports the same fact and gets no line.
    inits: VecDeque<ProcessKey>,
    line: String,
}

impl Table {
    /// A table with times in `zone`.
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

    /// Whether the event is the fork of an init that was already shown.
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

/// The columns with their widths.
fn columns(fields: &Fields<Field>, width: Option<usize>) -> Vec<(Field, usize)> {
    let Some(width) = width else { return fields.iter().map(|field| (field, usual_width(field))).collect() };
    let rules: Vec<WidthRule> = fields.columns().iter().map(|column| column.width_rule).collect();
    let natural = fields.iter().map(|field| match field {
        // The whole width. `fit` reduces it to what the other columns leave.
        Field::Detail => width,
        field => most_width(field),
    });
    let widths = fit(&natural.collect::<Vec<_>>(), &rules, width);
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
        // If a narrow terminal omits the columns that name the namespace, the detail names it.
        let about = ns.filter(|_| process.is_none() && !has_ns && !has(Field::Container));
        let zone = self.zone.clone();
        let cell = |field: Field, line: &mut String| {
            // Writing to a string cannot fail.
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
    /// Writes a line. Each column's text is appended to the line, and shortened if it does not fit.
    fn write_line(
        &mut self,
        cell: impl Fn(Field, &mut String),
        paint: impl Fn(Field) -> Paint,
        to: &mut dyn io::Write,
    ) -> io::Result<()> {
        let Self { columns, line, screen, .. } = self;
        line.clear();
        // Write blanks only when a text follows.
        let mut blanks = 0;
        for (at, (field, width)) in columns.iter_mut().enumerate() {
            let field = *field;
            blanks += if at == 0 { 0 } else { GAP };
            let (on, off) = paint(field).codes(screen.style);
            let before = line.len();
            line.extend(iter::repeat_n(' ', blanks));
            line.push_str(on);
            let start = line.len();
            cell(field, line);
            let mut taken = line[start..].width();
            if screen.width.is_none() {
                *width = taken.min(most_width(field)).max(*width);
            } else if taken > *width {
                let short = shorten(&line[start..], *width, field.width_rule().cut).into_owned();
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
