//! `explain`: describes one namespace or process in sentences.

mod namespace;
mod process;
mod timeline;

use std::{fmt::Display, io};

use jiff::{ZonedDateTime, tz::TimeZone};
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use super::{
    JsonForm, document, findings,
    phrases::{self, Duration, who},
    screen::{Paint, Screen},
    teardown, wrap,
};
use crate::{
    event::container::{Container, Role},
    event::finding::Finding,
    event::identity::{BootNs, NsInum},
    event::snapshot::{Freezer, SnapshotProcess, SnapshotSource},
    event::{INITIAL_NS, VERSION},
    explanation::{Explanation, Facts, Joiner, Wait},
    model::{Awaited, Origin},
    text::{Count, Name, printable},
};

/// Width of the labels.
const INDENT: usize = 14;

/// Maximum number of items of a kind that the text lists. It only counts further ones. JSON lists all.
const NAMED: usize = 10;

/// Writes one document.
pub fn json(explanation: &Explanation, to: &mut dyn io::Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Document<'a> {
        v: u8,
        #[serde(flatten)]
        explanation: &'a Explanation,
    }
    document(&Document { v: VERSION, explanation }, JsonForm::Indented, to)
}

/// Writes the text. Times are shown in `zone`.
pub fn text(
    explanation: &Explanation,
    zone: &TimeZone,
    screen: Screen,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let mut sheet = Page { explanation, zone, screen, to };
    match &explanation.facts {
        Facts::Namespace(facts) => namespace::write(facts, &mut sheet)?,
        Facts::Process(facts) => process::write(facts, &mut sheet)?,
    }
    sheet.findings()?;
    timeline::write(&mut sheet)
}

/// The output: lines with a label and a text.
struct Page<'a> {
    explanation: &'a Explanation,
    zone: &'a TimeZone,
    screen: Screen,
    to: &'a mut dyn io::Write,
}

impl Page<'_> {
    /// Writes the heading: the subject and, for a recording, the explained moment.
    fn head(&mut self, subject: impl Display) -> io::Result<()> {
        let Explanation { source, boot_ns, .. } = *self.explanation;
        let moment = match source {
            SnapshotSource::Recording => format!(", in the recording, as of {}", self.clock(boot_ns, true)),
            SnapshotSource::Iterator | SnapshotSource::Proc => String::new(),
        };
        let mut head = Vec::new();
        wrap::write(("", 0), &format!("{subject}{moment}"), INDENT, self.screen.width, &mut head)?;
        String::from_utf8_lossy(&head)
            .lines()
            .try_for_each(|line| writeln!(self.to, "{}", Paint::Bold.on(line, self.screen.style)))
    }

    fn line(&mut self, label: &str, text: impl Display) -> io::Result<()> {
        let padding = " ".repeat((INDENT - 2).saturating_sub(label.width()).max(1));
        let start = format!("  {}{padding}", Paint::Dim.on(label, self.screen.style));
        let width = 2 + label.width() + padding.len();
        // Texts from a recording can contain control characters.
        wrap::write((&start, width), &printable(&text.to_string()), INDENT, self.screen.width, self.to)
    }

    fn is_of_a_recording(&self) -> bool {
        self.explanation.source == SnapshotSource::Recording
    }

    /// Writes one line per text; the first line has the label.
    fn list(&mut self, label: &str, texts: &[String]) -> io::Result<()> {
        for (index, text) in texts.iter().take(NAMED).enumerate() {
            self.line(if index == 0 { label } else { "" }, text)?;
        }
        match texts.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => self.line("", format_args!("and {more} more (-o json has all)")),
        }
    }

    /// Writes the findings, one per line.
    fn findings(&mut self) -> io::Result<()> {
        let Explanation { findings, .. } = self.explanation;
        let line = |finding: &Finding| {
            let when = findings::when(finding.id, self.since(finding.since_boot_ns));
            format!("{} {}, {when}: {}", finding.severity, finding.id, findings::summary(finding))
        };
        let lines: Vec<String> = findings.iter().map(line).collect();
        self.list("Findings", &lines)
    }

    /// Formats a time by the wall clock. Includes the date if `day` is set, or if the date differs from that of the
    /// explained moment.
    fn clock(&self, boot_ns: BootNs, day: bool) -> String {
        let zoned = |time| ZonedDateTime::new(time, self.zone.clone());
        let then = zoned(self.explanation.wall_clock(boot_ns));
        let now = zoned(self.explanation.time);
        let day = day || then.date() != now.date();
        then.strftime(if day { "%Y-%m-%d %H:%M:%S%.3f" } else { "%H:%M:%S%.3f" }).to_string()
    }

    /// "2.45 s ago, at 14:03:07.120".
    fn ago(&self, boot_ns: BootNs) -> String {
        format!("{} ago, at {}", self.since(boot_ns), self.clock(boot_ns, false))
    }

    /// Time from `boot_ns` to the explained moment.
    fn since(&self, boot_ns: BootNs) -> Duration {
        Duration(self.explanation.boot_ns.saturating_since(boot_ns))
    }

    /// Writes the facts about the container, and the doubts about them.
    fn container(&mut self, container: Option<&Container>, doubts: &[String]) -> io::Result<()> {
        let mut next = container;
        let mut label = "Container";
        while let Some(container) = next {
            self.line(label, facts_of(container))?;
            next = container.outer.as_deref();
            label = "  within";
        }
        let doubts: Vec<String> =
            doubts.iter().map(|doubt| Name::from(doubt.as_str()).for_terminal().to_string()).collect();
        self.list("  doubt", &doubts)
    }
}

/// "docker/web: image nginx:1.27, id 0123456789ab…".
fn facts_of(container: &Container) -> String {
    let Container {
        runtime: _,
        id,
        name: _,
        image,
        pod,
        pod_namespace: _,
        pod_uid,
        qos,
        runtime_namespace,
        unit,
        user,
        role,
        outer: _,
        by_cgroup_alone: _,
        doubts: _,
    } = container;
    let named =
        |what: &str, name: &Option<Name>| name.as_ref().map(|name| format!("{what} {}", name.for_terminal()));
    // If there is a pod, the label shows it instead of the runtime.
    let runtime = pod.as_ref().and(container.runtime).map(|runtime| format!("run by {}", runtime.name()));
    let facts = [
        runtime,
        role.map(|role| match role {
            Role::Sandbox => "the sandbox, which keeps the pod's namespaces alive".to_owned(),
        }),
        named("container", &container.name).filter(|_| pod.is_some() && role.is_none()),
        named("image", image),
        named("id", id),
        named("pod id", pod_uid),
        qos.map(|qos| format!("{qos:?}").to_lowercase()),
        named("containerd's namespace", runtime_namespace),
        named("unit", unit),
        user.map(|user| format!("of uid {user}")),
    ];
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    let label = container.label().for_terminal().to_string();
    if facts.is_empty() { label } else { format!("{label}: {}", facts.join(", ")) }
}

/// Meaning of a state's letter (proc(5)).
fn state_text(state: char) -> &'static str {
    match state {
        'R' => "running or runnable",
        'S' => "sleeping",
        'D' => "in uninterruptible sleep: no signal has an effect until it ends",
        'T' => "stopped: SIGCONT continues it",
        't' => "stopped by a tracer",
        'Z' => "zombie",
        'X' => "dead",
        'I' => "idle kernel thread",
        'P' => "parked",
        _ => "in an unknown state",
    }
}

/// The process that must reap a zombie, as the end of a sentence.
fn must_reap(zombie: &SnapshotProcess, wait: &Wait) -> String {
    let then = parent_must_reap(zombie, wait);
    match &wait.tracer {
        Some(tracer) => {
            let tracer = who(tracer);
            format!("its tracer {tracer} keeps it until {tracer} waits for it, detaches or ends; then {then}")
        }
        None if wait.tracer_unknown => {
            format!("{then} (unless another process traces it, which the recording does not show)")
        }
        None => then,
    }
}

/// The same, without regard to a tracer.
fn parent_must_reap(zombie: &SnapshotProcess, wait: &Wait) -> String {
    match &wait.reaper {
        Some(reaper) if reaper.is_init() && reaper.ns == zombie.ns && zombie.level() != Some(0) => {
            format!("{}, PID 1 of its namespace, must reap it", who(reaper))
        }
        Some(reaper) if reaper.ns.is_some() && reaper.ns != zombie.ns => {
            format!("its parent {}, outside its namespace, must reap it", who(reaper))
        }
        Some(reaper) => format!("its parent {} must reap it", who(reaper)),
        None => match &wait.adopter {
            Some(adopter) => {
                format!("{} must reap it, or an ancestor that adopts orphans (a subreaper)", who(adopter))
            }
            None => "it is unknown which process must reap it".to_owned(),
        },
    }
}

/// See [`phrases::from_outside`].
fn from_outside(joiner: &Joiner) -> String {
    let Joiner { process: _, parent, forked_by, origin, from: _ } = joiner;
    phrases::from_outside(*forked_by, *parent, origin.as_ref().map(Origin::from))
}

/// Each process that the end of a namespace waits for, with the reason why it is still there.
fn awaited(waits_for: &[Awaited]) -> Vec<String> {
    let line = |Awaited { process, why }: &Awaited| {
        format!("{}: {}", numbered(process), teardown::long(why.as_ref()))
    };
    waits_for.iter().map(line).collect()
}

/// Describes a process better than the letter of its state does, if it is exiting, frozen or has lost its first thread.
fn condition_of(process: &SnapshotProcess) -> Option<String> {
    if process.exiting {
        return Some(match process.is_init() {
            true => {
                "exiting: it waits for the other processes of its namespace to end and be reaped".to_owned()
            }
            false => "exiting: all its threads are exiting".to_owned(),
        });
    }
    if process.frozen {
        return Some(match process.freezer {
            Some(Freezer::CgroupV2) => {
                "frozen by its cgroup (cgroup.freeze): until it is thawed, only SIGKILL reaches it".to_owned()
            }
            Some(Freezer::CgroupV1OrSuspend) | None => {
                "frozen: until it is thawed, no signal reaches it, not even SIGKILL".to_owned()
            }
        });
    }
    if process.outlives_first_thread() {
        let others = process.threads.map_or(0, |threads| u64::from(threads).saturating_sub(1));
        let live = process.threads_live.map_or(others, u64::from);
        return Some(format!(
            "its first thread has ended, and {}: it is not a zombie, and can only be reaped when they end",
            Count(live, "other lives", "others live")
        ));
    }
    None
}

/// "level 1". For level 0, the text also says whether it is the host's.
fn level_text(level: u32, inum: Option<NsInum>) -> String {
    match (level, inum) {
        (0, Some(INITIAL_NS)) => "level 0, the host".to_owned(),
        (0, _) => "level 0, the outermost visible level".to_owned(),
        (level, _) => format!("level {level}"),
    }
}

/// "sleep[16750] (16750 → 4 → 1)".
fn numbered(process: &SnapshotProcess) -> String {
    match process.pids.len() {
        0 | 1 => who(process),
        _ => format!("{} ({})", who(process), phrases::pids(&process.pids)),
    }
}
