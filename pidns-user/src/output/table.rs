//! The stream as people read it: a line an event.

use std::io;

use jiff::{ZonedDateTime, tz::TimeZone};

use super::{
    View,
    columns::padded,
    findings,
    phrases::{Arguments, Death, Duration, ExitPhrase, ParentDeath, Who, pids, words},
    refusals::{self, Refusal},
};
use crate::{
    event::container::Container,
    event::finding::{FindingState, Severity},
    event::identity::NsInum,
    event::{Body, Event, Namespace, Process},
    text::Count,
    text::printable,
};

/// Colours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Plain text.
    Plain,
    /// With ANSI colours.
    Colour,
}

const HEADING: &str = "TIME          EVENT          NS          LVL  PIDS            COMM             CONTAINER         \
                       DETAIL";

/// A table whose columns have fixed widths, as later rows are not known.
#[derive(Debug)]
pub struct Table {
    zone: TimeZone,
    style: Style,
    headings: bool,
}

impl Table {
    /// Times are shown in `zone`.
    pub fn new(zone: TimeZone, style: Style, headings: bool) -> Self {
        Self { zone, style, headings }
    }
}

/// What a row shows.
pub(super) struct Row<'a> {
    pub(super) label: &'static str,
    colour: &'static str,
    pub(super) ns: Option<(NsInum, Option<u32>)>,
    pub(super) process: Option<&'a Process>,
    pub(super) detail: String,
}

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const CYAN: &str = "\x1b[36m";
const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

impl View for Table {
    fn begin(&mut self, to: &mut dyn io::Write) -> io::Result<()> {
        if self.headings { writeln!(to, "{HEADING}") } else { Ok(()) }
    }

    fn event(
        &mut self,
        _seq: u64,
        event: &Event,
        container: Option<&Container>,
        to: &mut dyn io::Write,
    ) -> io::Result<()> {
        let Some(Row { label, colour, ns, process, detail }) = row(&event.body) else { return Ok(()) };
        let time = ZonedDateTime::new(event.time, self.zone.clone()).strftime("%H:%M:%S%.3f").to_string();
        let (inum, level) = match ns {
            Some((inum, level)) => {
                (inum.to_string(), level.map_or_else(|| "-".to_owned(), |l| l.to_string()))
            }
            None => ("-".to_owned(), "-".to_owned()),
        };
        let pids = process.map_or_else(|| "-".to_owned(), |process| pids(&process.pids));
        let comm = process.map_or_else(|| "-".to_owned(), |process| process.comm.for_terminal().to_string());
        let container = process
            .and_then(|process| process.container.as_deref())
            .or(container)
            .map_or_else(|| "-".to_owned(), |container| container.label().for_terminal().to_string());
        let (on, off) = match self.style {
            Style::Plain => ("", ""),
            Style::Colour => (colour, RESET),
        };
        let about = if event.exact { "" } else { " ~" };
        writeln!(
            to,
            "{time}  {on}{label:<13}{off}  {inum:<10}  {level:>3}  {pids:<14}  {}  {}  {detail}{about}",
            padded(&comm, 15),
            padded(&container, 16),
        )
    }
}

fn of(ns: &Namespace) -> Option<(NsInum, Option<u32>)> {
    Some((ns.inum, Some(ns.level)))
}

fn innermost(process: &Process) -> Option<(NsInum, Option<u32>)> {
    Some((process.ns, Some(process.pids.len().saturating_sub(1) as u32)))
}

/// The row of an event. A recording's words (`errno`, `reason`, a state …) are whatever somebody wrote there, as its names are:
/// none of it reaches a terminal as it is.
pub(super) fn row(body: &Body) -> Option<Row<'_>> {
    let row = row_of(body)?;
    Some(Row { detail: printable(&row.detail).into_owned(), ..row })
}

fn row_of(body: &Body) -> Option<Row<'_>> {
    Some(match body {
        Body::StreamStart { .. } | Body::StreamEnd { .. } => return None,
        Body::SnapshotNamespace { ns, holders, holders_left_out } => Row {
            label: "is there",
            colour: DIM,
            ns: Some((ns.inum, Some(ns.level))),
            process: None,
            detail: [
                ns.parent.map(|parent| format!("parent {parent}")),
                ns.dying.then(|| "dying".to_owned()),
                match (holders.len() as u64).saturating_add(*holders_left_out) {
                    0 => None,
                    count => Some(Count(count, "holder", "holders").to_string()),
                },
            ]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(", "),
        },
        Body::SnapshotProcess {
            process,
            state,
            threads,
            threads_live: _,
            exiting,
            frozen,
            freezer: _,
            tracer,
            subreaper,
            cgroup_id: _,
            cgroup: _,
            zombie_since_boot_ns: _,
            last_ran_boot_ns: _,
            joined,
        } => Row {
            label: "runs",
            colour: DIM,
            ns: innermost(process),
            process: Some(process),
            detail: [
                state.map(|state| format!("state {state}")),
                threads.filter(|&threads| threads > 1).map(|threads| format!("{threads} threads")),
                exiting.then(|| "exiting".to_owned()),
                frozen.then(|| "frozen".to_owned()),
                tracer.map(|tracer| format!("traced by {tracer}")),
                (*subreaper == Some(true)).then(|| "adopts orphans".to_owned()),
                (*joined == Some(true)).then(|| "its parent is outside".to_owned()),
            ]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(", "),
        },
        Body::NamespaceCreate { ns, via, creator } => Row {
            label: "create",
            colour: GREEN,
            ns: of(ns),
            process: None,
            detail: format!(
                "by {}{}{}",
                Who(creator),
                via.as_ref().map(|via| format!(" via {via}")).unwrap_or_default(),
                ns.parent.map(|parent| format!(", parent {parent}")).unwrap_or_default()
            ),
        },
        Body::NamespaceCreateFailed {
            via,
            creator,
            errno,
            reason,
            limit,
            set_tid,
            taken,
            holder,
            capability,
            user_ns,
        } => Row {
            label: "create failed",
            colour: YELLOW,
            ns: innermost(creator),
            process: Some(creator),
            detail: format!(
                "{via}: {errno}, {}",
                refusals::why(&Refusal {
                    reason,
                    limit: limit.as_ref(),
                    set_tid,
                    taken: taken.as_ref(),
                    holder: holder.as_ref(),
                    capability: capability.as_deref(),
                    user_ns: *user_ns,
                })
            ),
        },
        Body::NamespaceInit { ns, process } => Row {
            label: "init",
            colour: GREEN,
            ns: of(ns),
            process: Some(process),
            detail: process.ppid.map(|ppid| format!("forked by {ppid}")).unwrap_or_default(),
        },
        Body::NamespaceJoin { ns, process, from } => Row {
            label: "join",
            colour: CYAN,
            ns: of(ns),
            process: Some(process),
            detail: format!(
                "its children go here{}",
                from.map(|from| format!(", before to {from}")).unwrap_or_default()
            ),
        },
        Body::NamespaceJoinFailed { ns, process, errno, reason, capability, user_ns } => Row {
            label: "join failed",
            colour: YELLOW,
            ns: ns.as_ref().and_then(of),
            process: Some(process),
            detail: format!(
                "setns: {errno}, {}",
                refusals::why(&Refusal {
                    capability: capability.as_deref(),
                    user_ns: *user_ns,
                    ..Refusal::of(reason)
                })
            ),
        },
        Body::NamespaceInitExit { ns, process, exit, cause, members } => Row {
            label: "init exit",
            colour: RED,
            ns: of(ns),
            process: Some(process),
            detail: format!(
                "{}, {}",
                Death { exit, cause },
                Count(u64::from(*members), "member left", "members left")
            ),
        },
        Body::NamespaceDestroy { ns, lived_ns } => Row {
            label: "destroy",
            colour: DIM,
            ns: of(ns),
            process: None,
            detail: lived_ns.map(|ns| format!("lived {}", Duration(ns))).unwrap_or_default(),
        },
        Body::NamespaceTeardown { ns, killed, nested, duration_ns } => Row {
            label: "teardown",
            colour: RED,
            ns: of(ns),
            process: None,
            detail: format!(
                "{killed} killed in {}{}",
                Duration(*duration_ns),
                if nested.is_empty() {
                    String::new()
                } else {
                    format!(
                        ", with it {}",
                        nested.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                    )
                }
            ),
        },
        Body::ProcessFork { process, parent, crosses, restored } => Row {
            label: "fork",
            colour: DIM,
            ns: innermost(process),
            process: Some(process),
            detail: format!(
                "by {}{}{}",
                Who(parent),
                if *crosses { format!(" in {}", parent.ns) } else { String::new() },
                if *restored { ", PIDs chosen" } else { "" }
            ),
        },
        Body::ProcessExec { process, filename, args, args_truncated } => Row {
            label: "exec",
            colour: DIM,
            ns: innermost(process),
            process: Some(process),
            detail: match args {
                None => filename.for_terminal().to_string(),
                Some(args) => format!("{}:{}", filename.for_terminal(), Arguments(args, *args_truncated)),
            },
        },
        Body::ProcessExit { process, exit, ran_ns, threads, cause, cascade, orphaned } => Row {
            label: "exit",
            colour: DIM,
            ns: innermost(process),
            process: Some(process),
            detail: format!(
                "{} after {}{}{}",
                match (cascade, cause) {
                    (Some(ns), _) => format!("{} with its namespace {ns}", ExitPhrase(exit)),
                    (None, Some(cause)) => Death { exit, cause }.to_string(),
                    (None, None) => ExitPhrase(exit).to_string(),
                },
                Duration(*ran_ns),
                threads.filter(|&n| n > 1).map(|n| format!(", {n} threads")).unwrap_or_default(),
                if *orphaned { ", orphaned" } else { "" }
            ),
        },
        Body::ProcessReap { process, zombie_ns } => Row {
            label: "reap",
            colour: DIM,
            ns: innermost(process),
            process: Some(process),
            detail: zombie_ns.map_or_else(
                || "its exit was not seen".to_owned(),
                |zombie_ns| format!("zombie for {}", Duration(zombie_ns)),
            ),
        },
        Body::InitSignal { ns, process, signal, sender, from, fate } => Row {
            label: "init signal",
            colour: YELLOW,
            ns: of(ns),
            process: Some(process),
            detail: format!(
                "{signal} {}: {}",
                match sender {
                    Some(parent) if *from == "parent_death" => {
                        let thread = process.ppid == Some(parent.pid);
                        ParentDeath { parent, thread }.to_string()
                    }
                    Some(sender) => format!("from {} ({from})", Who(sender)),
                    None => "from the kernel".to_owned(),
                },
                if *fate == "ignored" { ignored(signal, from).to_owned() } else { words(fate) }
            ),
        },
        Body::ForkFailed {
            process,
            ns,
            errno,
            reason,
            thread,
            limit,
            set_tid,
            taken,
            holder,
            capability,
            user_ns,
        } => Row {
            label: "fork failed",
            colour: YELLOW,
            ns: ns.as_ref().and_then(of),
            process: Some(process),
            detail: format!(
                "{}{errno}, {}",
                if *thread { "thread: " } else { "" },
                match &**reason {
                    // The errno says memory, and misleads everybody who reads it.
                    "namespace_dead" => "not memory: the namespace's init is dead".to_owned(),
                    "children_elsewhere" => {
                        "no thread while the children go to another PID namespace".to_owned()
                    }
                    reason => refusals::why(&Refusal {
                        reason,
                        limit: limit.as_ref(),
                        set_tid,
                        taken: taken.as_ref(),
                        holder: holder.as_ref(),
                        capability: capability.as_deref(),
                        user_ns: *user_ns,
                    }),
                }
            ),
        },
        Body::Finding { state, finding } => Row {
            label: match state {
                FindingState::Opened | FindingState::Updated => "finding",
                FindingState::Closed => "over",
            },
            colour: match (state, finding.severity) {
                (FindingState::Closed, _) => DIM,
                (_, Severity::Critical) => RED,
                (_, Severity::Warning) => YELLOW,
                (_, Severity::Info) => CYAN,
            },
            ns: finding.ns.as_ref().map(|ns| (ns.inum, Some(ns.level))),
            process: finding.process.as_ref(),
            detail: format!("{}: {}", finding.id, findings::summary(finding)),
        },
        Body::StreamResync { added, removed, changed } => Row {
            label: "resync",
            colour: YELLOW,
            ns: None,
            process: None,
            detail: format!("looked at all again: {added} added, {removed} removed, {changed} changed"),
        },
        Body::StreamLost { stage, count } => Row {
            label: "LOST",
            colour: RED,
            ns: None,
            process: None,
            detail: format!("{} ({stage})", Count(*count, "event", "events")),
        },
    })
}

/// Why an init took no notice of a signal (sig_task_ignored() and prepare_signal(), kernel/signal.c), as far as the
/// record tells: SIG_IGN is no handler either, and who is exiting takes no signal at all.
fn ignored(signal: &str, from: &str) -> &'static str {
    match (signal, from) {
        ("SIGKILL", "inside") => "ignored: from inside, PID 1 cannot be killed",
        ("SIGSTOP", "inside") => "ignored: from inside, PID 1 cannot be stopped",
        // From outside they always work.
        ("SIGKILL" | "SIGSTOP", _) => "ignored: it is exiting already",
        ("SIGCONT", _) => "ignored: it has no handler; if it was stopped, it goes on all the same",
        _ => "ignored: it has no handler, ignores it, or is exiting",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::container::Runtime,
        event::identity::{BootNs, HostPid},
        event::{Cause, Exit},
        text::Name,
    };

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
        Table::new(TimeZone::UTC, Style::Plain, true).event(1, &event, Some(&web), &mut out).unwrap();
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
        let column = |heading| HEADING.find(heading).unwrap();
        let chars: Vec<char> = row.chars().collect();
        for (heading, text) in
            [("EVENT", "init exit"), ("NS", "4026532847"), ("PIDS", "48121"), ("COMM", "ng")]
        {
            let at: String = chars[column(heading)..].iter().collect();
            assert!(at.starts_with(text), "{heading} is not above {text} in {row}");
        }
    }

    #[test]
    fn an_ignored_signal_is_told_with_the_rule_that_ignored_it() {
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
    fn what_is_not_exact_is_marked() {
        assert!(
            line(Body::ProcessReap { process: nginx(), zombie_ns: Some(1_900_000) }, false)
                .ends_with("zombie for 1.9 ms ~\n")
        );
    }
}
