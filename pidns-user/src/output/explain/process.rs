//! Describes a process in sentences.

use std::io;

use super::{Page, awaited, condition_of, from_outside, level_text, must_reap, numbered, state_text};
use crate::{
    event::INITIAL_NS,
    event::snapshot::{SnapshotProcess, SnapshotSource},
    explanation::{Gone, LevelFacts, ProcessFacts},
    model::AwaitedBy,
    output::{
        phrases::{Duration, ExitPhrase, who},
        teardown,
    },
    text::Count,
};

pub(super) fn write(facts: &ProcessFacts, sheet: &mut Page<'_>) -> io::Result<()> {
    let ProcessFacts { process, container, doubts, init_of, children_ns, gone, .. } = facts;
    let label = container.as_ref().map(|container| format!(" ({})", container.label().for_terminal()));
    sheet.head(format_args!("Process {}{}", who(process), label.unwrap_or_default()))?;
    if let Some(thread) = &facts.thread {
        let lines: Vec<String> = thread.levels.iter().map(level_line).collect();
        sheet.line("Thread", format_args!("{} is a thread of this process", thread.tid))?;
        sheet.list("  TIDs", &lines)?;
    }
    let state = state_of(facts, sheet);
    sheet.line("State", state)?;
    sheet.list("Waits for", &awaited(&facts.waits_for))?;
    if let Some(AwaitedBy { ns, why }) = &facts.awaited {
        let why = teardown::long(why.as_ref());
        sheet.line("Holds up", format_args!("the end of {ns}, whose PID 1 is exiting: {why}"))?;
    }
    sheet.list("PIDs", &levels_of(facts))?;
    if let Some(start) = process.start_boot_ns.filter(|_| gone.is_none()) {
        let ago = sheet.ago(start);
        sheet.line("Started", ago)?;
    }
    if let Some(uid) = process.uid {
        sheet.line("User", format_args!("uid {uid}"))?;
    }
    if let Some(threads) = process.threads.filter(|_| facts.zombie.is_none()) {
        sheet.line("Threads", threads)?;
    }
    if let Some(tracer) = facts.traced_by.as_ref().filter(|_| facts.zombie.is_none()) {
        sheet.line("Traced by", numbered(tracer))?;
    }
    if let Some(cgroup) = &process.cgroup {
        sheet.line("Cgroup", cgroup.for_terminal())?;
    }
    sheet.line("Parent", parent_of(facts))?;
    sheet.line("Entry", entry_of(facts))?;
    if let Some(others) = init_of {
        sheet.line("PID 1", role_of(facts, *others))?;
    }
    if process.subreaper == Some(true) {
        sheet.line("Subreaper", "it adopts the orphans among its descendants, and must reap them")?;
    }
    let source = sheet.explanation.source;
    let children: Vec<String> = facts.children.iter().map(|child| child_of(child, process, source)).collect();
    sheet.list("Children", &children)?;
    if let Some(ns) = children_ns {
        sheet.line(
            "",
            format_args!("new ones start in {ns}, not in its own namespace: it called setns or unshare"),
        )?;
    }
    sheet.container(container.as_ref(), doubts)?;
    match &facts.namespace_container {
        Some(other) => {
            sheet.line("", format_args!("it shares the PID namespace of {}", other.label().for_terminal()))
        }
        None => Ok(()),
    }
}

fn state_of(facts: &ProcessFacts, sheet: &Page<'_>) -> String {
    if let Some(Gone { ended_boot_ns, exit, reaped_boot_ns }) = &facts.gone {
        let exit = exit.as_ref().map(|exit| format!(" with {}", ExitPhrase(exit))).unwrap_or_default();
        let ended = match ended_boot_ns {
            Some(at) => format!("gone: it ended at {}{exit}", sheet.clock(*at, false)),
            None => "gone: its end was not seen".to_owned(),
        };
        let ran = ended_boot_ns.zip(facts.process.start_boot_ns);
        let ran = ran.map(|(end, start)| format!(" after {}", Duration(end.saturating_since(start))));
        let reaped = match (reaped_boot_ns, ended_boot_ns) {
            (Some(at), Some(ended)) => {
                format!(", and was reaped {} later", Duration(at.saturating_since(*ended)))
            }
            (Some(at), None) => format!(", it was reaped at {}", sheet.clock(*at, false)),
            (None, _) => String::new(),
        };
        return format!("{ended}{}{reaped}", ran.unwrap_or_default());
    }
    if let Some(wait) = &facts.zombie {
        let since = match wait.since_boot_ns {
            Some(since) => format!("ended {}", sheet.ago(since)),
            None => "ended at an unknown time".to_owned(),
        };
        let exit = wait.exit.as_ref().map(|exit| format!(" with {}", ExitPhrase(exit))).unwrap_or_default();
        return format!("zombie: it {since}{exit}; {}", must_reap(&facts.process, wait));
    }
    let sleeps = facts.process.wchan.as_ref().map(|wchan| format!(", in {}", wchan.for_terminal()));
    let by_letter = || {
        let state = facts.process.state?;
        Some(format!("{state}: {}{}", state_text(state), sleeps.unwrap_or_default()))
    };
    condition_of(&facts.process)
        .or_else(by_letter)
        .unwrap_or_else(|| "alive; nothing more is known".to_owned())
}

/// "2 in 4026532178 (level 1)".
fn level_line(level: &LevelFacts) -> String {
    let ns = level.ns.map_or_else(|| "an unknown namespace".to_owned(), |ns| ns.to_string());
    format!("{} in {ns} ({})", level.pid, level_text(level.level as u32, level.ns))
}

fn levels_of(facts: &ProcessFacts) -> Vec<String> {
    let mut lines: Vec<String> = facts.levels.iter().map(level_line).collect();
    if facts.process.pids.is_empty() {
        lines.push("deeper levels are unknown".to_owned());
    }
    lines
}

fn parent_of(facts: &ProcessFacts) -> String {
    match (&facts.parent, facts.process.ppid) {
        (Some(parent), _) => {
            let outside = match facts.parent_visible {
                Some(false) => ", outside its namespace and invisible there: it sees 0 as its parent",
                Some(true) | None => "",
            };
            format!("{}{outside}", numbered(parent))
        }
        (None, Some(ppid)) => format!("{ppid}; nothing more is known about it"),
        (None, None) if facts.orphaned => {
            let init = facts.adopter.as_ref().map(numbered);
            let init = init.unwrap_or_else(|| "PID 1 of that parent's namespace".to_owned());
            format!(
                "its parent has ended: {init} has adopted it, or an ancestor that adopts orphans (a subreaper)"
            )
        }
        (None, None) if facts.gone.is_some() => "not remembered".to_owned(),
        (None, None) if facts.process.state.is_some() => "none".to_owned(),
        (None, None) => "unknown".to_owned(),
    }
}

fn entry_of(facts: &ProcessFacts) -> String {
    match (facts.joined, &facts.joiner) {
        (Some(true), Some(joiner)) => from_outside(joiner),
        (Some(true), None) => "its parent is outside".to_owned(),
        (Some(false), _) if facts.process.is_init() && facts.process.level() != Some(0) => {
            "born there, as its first process".to_owned()
        }
        (Some(false), _) => "born there".to_owned(),
        (None, _) => "unknown".to_owned(),
    }
}

/// The consequences of being PID 1.
fn role_of(facts: &ProcessFacts, others: usize) -> String {
    let ns = facts.process.ns.map(|ns| ns.to_string()).unwrap_or_default();
    if facts.zombie.is_some() {
        return format!("of {ns}: it has ended, so no process can fork there any more (ENOMEM)");
    }
    if facts.process.exiting {
        return format!("of {ns}, which is dying with it: no process can fork there any more (ENOMEM)");
    }
    if facts.process.ns == Some(INITIAL_NS) {
        return "of the host: it adopts orphans and must reap them, signals without a handler have no effect on it, and \
                the kernel panics when it ends"
            .to_owned();
    }
    let goes = match others {
        0 => "when it ends no process can fork there any more".to_owned(),
        others => format!(
            "when it ends the kernel kills the {} there and in nested namespaces",
            Count(others as u64, "other process", "other processes")
        ),
    };
    format!(
        "of {ns}: it adopts orphans there and must reap them, signals without a handler have no effect on it \
         (except SIGKILL and SIGSTOP from outside), and {goes}"
    )
}

fn child_of(child: &SnapshotProcess, parent: &SnapshotProcess, source: SnapshotSource) -> String {
    let elsewhere = child.ns.filter(|_| child.ns != parent.ns).map(|ns| format!(", in {ns}"));
    let zombie = match child.tracer.filter(|&tracer| tracer != parent.pid) {
        _ if !child.is_zombie() => String::new(),
        Some(tracer) => format!(", a zombie that it must reap after its tracer {tracer} has released it"),
        None if child.knows_tracer(source) => ", a zombie that it must reap".to_owned(),
        None => ", a zombie that it must reap (unless another process traces it, which the recording does not show)"
            .to_owned(),
    };
    format!("{}{}{zombie}", numbered(child), elsewhere.unwrap_or_default())
}
