//! The lines of events in the stream's table.

use super::{
    findings,
    phrases::{Arguments, Death, Duration, ExitPhrase, ParentDeath, Who, signal_origin, spaced},
    refusals::{self, Refusal},
    screen::Paint,
};
use crate::{
    event::finding::{FindingState, Severity},
    event::identity::NsInum,
    event::{Body, Namespace, Process},
    text::Count,
    text::printable,
};

/// Content of a row.
pub(super) struct Row<'a> {
    pub(super) label: &'static str,
    pub(super) paint: Paint,
    pub(super) ns: Option<(NsInum, Option<u32>)>,
    pub(super) process: Option<&'a Process>,
    pub(super) detail: String,
}

fn of(ns: &Namespace) -> Option<(NsInum, Option<u32>)> {
    Some((ns.inum, Some(ns.level)))
}

fn innermost(process: &Process) -> Option<(NsInum, Option<u32>)> {
    Some((process.ns, Some(process.pids.len().saturating_sub(1) as u32)))
}

/// The row of an event. Texts of a recording (`errno`, `reason`, a state …) can contain anything, so they are escaped
/// for the terminal.
pub(super) fn row(body: &Body) -> Option<Row<'_>> {
    let row = row_of(body)?;
    Some(Row { detail: printable(&row.detail).into_owned(), ..row })
}

fn row_of(body: &Body) -> Option<Row<'_>> {
    Some(match body {
        Body::StreamStart { .. } | Body::StreamEnd { .. } => return None,
        Body::SnapshotNamespace { ns, holders, holders_left_out } => Row {
            label: body.label(),
            paint: Paint::Dim,
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
            wchan: _,
            joined,
        } => Row {
            label: body.label(),
            paint: Paint::Dim,
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
            label: body.label(),
            paint: Paint::Green,
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
            label: body.label(),
            paint: Paint::Yellow,
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
            label: body.label(),
            paint: Paint::Green,
            ns: of(ns),
            process: Some(process),
            detail: process.ppid.map(|ppid| format!("forked by {ppid}")).unwrap_or_default(),
        },
        Body::NamespaceJoin { ns, process, from } => Row {
            label: body.label(),
            paint: Paint::Cyan,
            ns: of(ns),
            process: Some(process),
            detail: format!(
                "children now start here{}",
                from.map(|from| format!(" (was {from})")).unwrap_or_default()
            ),
        },
        Body::NamespaceJoinFailed { ns, process, errno, reason, capability, user_ns } => Row {
            label: body.label(),
            paint: Paint::Yellow,
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
            label: body.label(),
            paint: Paint::Red,
            ns: of(ns),
            process: Some(process),
            detail: format!(
                "{}, {}",
                Death { exit, cause },
                Count(u64::from(*members), "PID left", "PIDs left")
            ),
        },
        Body::NamespaceDestroy { ns, lived_ns } => Row {
            label: body.label(),
            paint: Paint::Dim,
            ns: of(ns),
            process: None,
            detail: lived_ns.map(|ns| format!("lived {}", Duration(ns))).unwrap_or_default(),
        },
        Body::NamespaceTeardown { ns, killed, nested, duration_ns } => Row {
            label: body.label(),
            paint: Paint::Red,
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
            label: body.label(),
            paint: Paint::Dim,
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
            label: body.label(),
            paint: Paint::Dim,
            ns: innermost(process),
            process: Some(process),
            detail: match args {
                None => filename.for_terminal().to_string(),
                Some(args) => format!("{}:{}", filename.for_terminal(), Arguments(args, *args_truncated)),
            },
        },
        Body::ProcessExit { process, exit, ran_ns, threads, cause, cascade, orphaned } => Row {
            label: body.label(),
            paint: Paint::Dim,
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
            label: body.label(),
            paint: Paint::Dim,
            ns: innermost(process),
            process: Some(process),
            detail: zombie_ns.map_or_else(
                || "its exit was not seen".to_owned(),
                |zombie_ns| format!("zombie for {}", Duration(zombie_ns)),
            ),
        },
        Body::InitSignal { ns, process, signal, sender, from, fate } => Row {
            label: body.label(),
            paint: Paint::Yellow,
            ns: of(ns),
            process: Some(process),
            // The fate comes first: on a narrow terminal the end is cut off.
            detail: format!(
                "{} {signal} {}{}",
                spaced(fate),
                match sender {
                    Some(parent) if *from == "parent_death" => {
                        let thread = process.ppid == Some(parent.pid);
                        ParentDeath { parent, thread }.to_string()
                    }
                    Some(sender) => format!("from {} ({})", Who(sender), signal_origin(from)),
                    None => "from the kernel".to_owned(),
                },
                if *fate == "ignored" { format!(": {}", ignored(signal, from)) } else { String::new() }
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
            label: body.label(),
            paint: Paint::Yellow,
            ns: ns.as_ref().and_then(of),
            process: Some(process),
            detail: format!(
                "{}{errno}, {}",
                if *thread { "thread: " } else { "" },
                match &**reason {
                    // The errno suggests a lack of memory, which is misleading.
                    "namespace_dead" => "but not for lack of memory: the namespace's init is dead".to_owned(),
                    "children_elsewhere" => {
                        "no threads while its children start in another PID namespace".to_owned()
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
                FindingState::Opened | FindingState::Updated => body.label(),
                FindingState::Closed => "over",
            },
            paint: match (state, finding.severity) {
                (FindingState::Closed, _) => Paint::Dim,
                (_, Severity::Critical) => Paint::Red,
                (_, Severity::Warning) => Paint::Yellow,
                (_, Severity::Info) => Paint::Cyan,
            },
            ns: finding.ns.as_ref().map(|ns| (ns.inum, Some(ns.level))),
            process: finding.process.as_ref(),
            detail: format!("{}: {}", finding.id, findings::summary(finding)),
        },
        Body::StreamResync { added, removed, changed } => Row {
            label: body.label(),
            paint: Paint::Yellow,
            ns: None,
            process: None,
            detail: format!("new snapshot: {added} added, {removed} removed, {changed} changed"),
        },
        Body::StreamLost { stage, count } => Row {
            label: body.label(),
            paint: Paint::Red,
            ns: None,
            process: None,
            detail: format!("{} ({stage})", Count(*count, "event", "events")),
        },
    })
}

/// The reason why an init ignored a signal (sig_task_ignored() and prepare_signal(), kernel/signal.c), as far as the
/// record shows it. SIG_IGN counts as no handler, and an exiting process ignores every signal.
fn ignored(signal: &str, from: &str) -> &'static str {
    match (signal, from) {
        ("SIGKILL", "inside") => "from inside, PID 1 cannot be killed",
        ("SIGSTOP", "inside") => "from inside, PID 1 cannot be stopped",
        // From outside they always work unless it is exiting.
        ("SIGKILL" | "SIGSTOP", _) => "it is exiting already",
        ("SIGCONT", _) => "it has no handler; if it was stopped, it continues",
        _ => "it has no handler, ignores it, or is exiting",
    }
}
