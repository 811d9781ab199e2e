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
            Body::ProcessFork { process, .. }
                if process.pids.len() > 1 && process.pids.last() == Some(&1) =>
            {
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
mod tests {
    use super::*;
    use crate::{
        event::container::Runtime,
        event::identity::{BootNs, HostPid, NsInum},
        event::{Cause, Exit, Namespace, Process},
        output::screen::Style,
        text::Name,
    };
    use proptest::prelude::*;

    fn nginx() -> Process {
        Process {
            pid: HostPid(48121),
            pids: vec![48121, 1],
            comm: Name::from(&b"ng\x1b[31minx"[..]),
            start_boot_ns: BootNs(5),
            ppid: Some(HostPid(811)),
            uid: 0,
            ns: NsInum(4026532847),
            container: None,
        }
    }

    fn table(screen: Screen) -> Table {
        Table::new(TimeZone::UTC, &Fields::default(), true, screen)
    }

    fn terminal(width: usize) -> Screen {
        Screen { width: Some(width), style: Style::Plain }
    }

    fn event(body: Body) -> Event {
        let time = jiff::Timestamp::new(1_700_000_000, 120_000_000).unwrap();
        Event { seq: 1, time, boot_ns: BootNs(1), exact: true, body }
    }

    fn container(name: &str) -> Container {
        Container { runtime: Some(Runtime::Docker), name: Some(Name::from(name)), ..Container::default() }
    }

    fn reap(pids: &[u32], comm: &str) -> Body {
        let process = Process { pids: pids.to_vec(), comm: Name::from(comm), ..nginx() };
        Body::ProcessReap { process, zombie_ns: Some(1_900_000) }
    }

    /// The heading, and the line of an event in this container.
    fn shown(mut table: Table, body: Body, container: Option<&Container>) -> Vec<String> {
        let mut out = Vec::new();
        table.begin(&mut out).unwrap();
        table.event(1, &event(body), container, &mut out).unwrap();
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn columns_give_way_by_importance() {
        let web = container("web");
        let heading = |width| shown(table(terminal(width)), reap(&[7, 1], "sh"), Some(&web)).remove(0);
        let headings = |width| heading(width).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(headings(60), ["TIME", "EVENT", "PIDS", "COMM", "DETAIL"]);
        assert_eq!(headings(80), ["TIME", "EVENT", "PIDS", "COMM", "CONTAINER", "DETAIL"]);
        assert_eq!(headings(120), ["TIME", "EVENT", "NS", "PIDS", "COMM", "CONTAINER", "DETAIL"]);
        let all = ["TIME", "EVENT", "NS", "LVL", "PIDS", "COMM", "CONTAINER", "DETAIL"];
        assert_eq!(headings(200), all);
        let chosen: Fields<Field> = "time,ns,level,pids,comm,container".parse().unwrap();
        let chosen = Table::new(TimeZone::UTC, &chosen, true, terminal(60));
        let line = &shown(chosen, reap(&[7, 1], "sh"), Some(&web))[0];
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["TIME", "NS", "LVL", "PIDS", "COMM", "CONTAINER"],
            "what is named is shown"
        );
    }

    #[test]
    fn long_names_and_deep_nesting_keep_the_columns_in_line() {
        let pids: Vec<u32> = (0..33).map(|level| 4_000_000 - level).collect();
        let long = container("a-container-with-a-name-that-is-hard-to-remember");
        let lines = shown(table(terminal(80)), reap(&pids, "名前名前名前"), Some(&long));
        assert_eq!(lines[0], "TIME      EVENT        PIDS        COMM       CONTAINER      DETAIL");
        assert_eq!(
            lines[1],
            "22:13:20  reap         4000000…    名前名前…  docker/a-con…  zombie for 1.9 ms"
        );
        let ns = Namespace {
            inum: NsInum(4026532847),
            level: 1,
            parent: None,
            born_boot_ns: None,
            kernel_id: None,
            user_ns: 1,
            owner_uid: 0,
            container: None,
        };
        let gone = Body::NamespaceDestroy { ns, lived_ns: Some(1_900_000) };
        let narrow = shown(table(terminal(60)), gone, None);
        assert_eq!(narrow[1], "22:13:20  destroy      -          -         4026532847 live…");
        let none = shown(table(terminal(80)), reap(&[48121, 1], "sh"), None);
        assert!(none[1].contains("  4026532847  "), "the namespace of what is in no container: {none:?}");
    }

    #[test]
    fn an_init_that_is_forked_has_one_line() {
        let ns = Namespace {
            inum: NsInum(4026532847),
            level: 1,
            parent: None,
            born_boot_ns: None,
            kernel_id: None,
            user_ns: 1,
            owner_uid: 0,
            container: None,
        };
        let fork = |process: Process| Body::ProcessFork {
            process,
            parent: nginx(),
            crosses: false,
            restored: false,
        };
        let other = Process { pid: HostPid(48130), pids: vec![48130, 1], ..nginx() };
        let member = Process { pid: HostPid(48131), pids: vec![48131, 2], ..nginx() };
        let mut table = table(Screen::default());
        let mut lines = |body: Body| {
            let mut out = Vec::new();
            table.event(1, &event(body), None, &mut out).unwrap();
            String::from_utf8(out).unwrap().lines().count()
        };
        assert_eq!(lines(fork(nginx())), 1, "where its init is not shown, the fork is");
        assert_eq!(lines(Body::NamespaceInit { ns, process: nginx() }), 1);
        assert_eq!(lines(fork(other)), 1, "another's, which came in between");
        assert_eq!(lines(fork(member)), 1);
        assert_eq!(lines(fork(nginx())), 0, "it has a line");
        assert_eq!(lines(fork(nginx())), 1, "but one fork is one fact");
    }

    #[test]
    fn the_heading_is_bold_and_the_event_has_its_colour() {
        let screen = Screen { width: Some(60), style: Style::Colour };
        let lines = shown(table(screen), reap(&[7, 1], "sh"), None);
        assert!(lines[0].starts_with("\x1b[1mTIME\x1b[0m"), "{lines:?}");
        assert!(lines[1].contains("\x1b[2mreap\x1b[0m"), "{lines:?}");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(
            pids in prop::collection::vec(1..4_194_304_u32, 1..34),
            comm in "[a-z名\u{1b}]{0,15}",
            name in prop::option::of("[a-z名-]{1,80}"),
            width in 20..250_usize,
        ) {
            let container = name.as_deref().map(container);
            for line in shown(table(terminal(width)), reap(&pids, &comm), container.as_ref()) {
                prop_assert!(line.width() <= width, "{line:?}");
            }
        }
    }

    fn line(body: Body, exact: bool) -> String {
        let event = Event {
            seq: 1,
            time: jiff::Timestamp::new(1_700_000_000, 120_000_000).unwrap(),
            boot_ns: BootNs(1),
            exact,
            body,
        };
        let mut out = Vec::new();
        let web = Container {
            runtime: Some(Runtime::Docker),
            name: Some(Name::from("web")),
            ..Container::default()
        };
        table(Screen::default()).event(1, &event, Some(&web), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_row_stands_under_its_headings_and_escapes_names() {
        let ns = Namespace {
            inum: NsInum(4026532847),
            level: 1,
            parent: Some(NsInum(4026531836)),
            born_boot_ns: None,
            kernel_id: None,
            user_ns: 1,
            owner_uid: 0,
            container: None,
        };
        let mut sender = nginx();
        sender.comm = Name::from("dockerd");
        sender.pid = HostPid(811);
        let cause = Cause::Signal { signal: "SIGKILL".to_owned(), sender: Some(sender) };
        let exit = Exit::Signal { signal: "SIGKILL".to_owned(), core: false };
        let row = line(Body::NamespaceInitExit { ns, process: nginx(), exit, cause, members: 6 }, true);
        assert_eq!(
            row,
            "22:13:20.120  init exit      4026532847    1  48121 → 1       ng\\u{1b}[31minx  \
             docker/web        SIGKILL from dockerd[811], 6 members left\n"
        );
        let mut headings = Vec::new();
        table(Screen::default()).begin(&mut headings).unwrap();
        let headings = String::from_utf8(headings).unwrap();
        assert_eq!(
            headings,
            "TIME          EVENT          NS          LVL  PIDS            COMM             CONTAINER         DETAIL\n"
        );
        let column = |heading| headings.find(heading).unwrap();
        let chars: Vec<char> = row.chars().collect();
        for (heading, text) in
            [("EVENT", "init exit"), ("NS", "4026532847"), ("PIDS", "48121"), ("COMM", "ng")]
        {
            let at: String = chars[column(heading)..].iter().collect();
            assert!(at.starts_with(text), "{heading} is not above {text} in {row}");
        }
    }

    #[test]
    fn an_ignored_signal_is_reported_with_the_rule_that_ignored_it() {
        let ns = Namespace {
            inum: NsInum(4026532847),
            level: 1,
            parent: None,
            born_boot_ns: None,
            kernel_id: None,
            user_ns: 1,
            owner_uid: 0,
            container: None,
        };
        let shown = |signal: &str, from: &'static str, fate: &'static str| {
            let body = Body::InitSignal {
                ns: ns.clone(),
                process: nginx(),
                signal: signal.to_owned(),
                sender: None,
                from: from.into(),
                fate: fate.into(),
            };
            let line = line(body, true);
            line.rsplit_once("kernel: ").unwrap().1.trim_end().to_owned()
        };
        let inside = |signal| shown(signal, "inside", "ignored");
        assert_eq!(inside("SIGKILL"), "ignored: from inside, PID 1 cannot be killed");
        assert_eq!(inside("SIGSTOP"), "ignored: from inside, PID 1 cannot be stopped");
        assert_eq!(inside("SIGTERM"), "ignored: it has no handler, ignores it, or is exiting");
        assert!(inside("SIGCONT").ends_with("goes on all the same"));
        let outside = |signal| shown(signal, "ancestor", "ignored");
        assert_eq!(outside("SIGKILL"), "ignored: it is exiting already", "from outside it kills");
        assert_eq!(outside("SIGTERM"), inside("SIGTERM"));
        assert_eq!(shown("SIGTERM", "ancestor", "already_pending"), "already pending");
    }

    #[test]
    fn estimates_are_marked() {
        assert!(
            line(Body::ProcessReap { process: nginx(), zombie_ns: Some(1_900_000) }, false)
                .ends_with("zombie for 1.9 ms ~\n")
        );
    }
}
