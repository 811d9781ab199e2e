//! Findings: the problem in one sentence, and the facts that prove it.

use std::{fmt::Display, io};

use serde::Serialize;

use super::{
    JsonForm, document,
    forest::held_by,
    phrases::{Death, Duration, Who, signal_origin},
    refusals::reached,
    screen::{Paint, Screen},
    wrap,
};
use crate::{
    event::{
        Process, VERSION,
        finding::{BlockedBy, Diagnosis, Evidence, EvidenceSource, Fact, Finding, NameCount, Role, Severity},
        identity::BootNs,
    },
    text::{Count, printable},
};

/// Writes one document with all findings.
pub fn json(findings: &[Finding], boot_ns: BootNs, form: JsonForm, to: &mut dyn io::Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Document<'a> {
        v: u8,
        boot_ns: BootNs,
        findings: &'a [Finding],
    }
    document(&Document { v: VERSION, boot_ns, findings }, form, to)
}

/// Writes each finding: the problem, its facts, and the commands to run next.
pub fn text(findings: &[Finding], now: BootNs, screen: Screen, to: &mut dyn io::Write) -> io::Result<()> {
    let line = |start: &str, text: &str, indent, to: &mut dyn io::Write| {
        wrap::write((start, start.len()), text, indent, screen.width, to)
    };
    if findings.is_empty() {
        return writeln!(to, "no problems found");
    }
    for (index, finding) in findings.iter().enumerate() {
        if index > 0 {
            writeln!(to)?;
        }
        let place = finding.ns.as_ref().map_or_else(
            || "-".to_owned(),
            |ns| match &ns.container {
                Some(container) => format!("{} {}", ns.inum, container.label().for_terminal()),
                None => ns.inum.to_string(),
            },
        );
        let since = Duration(now.saturating_since(finding.since_boot_ns));
        let severity = format!("{:<8}", finding.severity);
        let paint = match finding.severity {
            Severity::Critical => Paint::Red,
            Severity::Warning => Paint::Yellow,
            Severity::Info => Paint::Cyan,
        };
        let (start, width) = (format!("{}  ", paint.on(&severity, screen.style)), severity.len() + 2);
        let head = format!("{}  in {place}  {}", finding.id, when(finding.id, since));
        wrap::write((&start, width), &head, width, screen.width, to)?;
        line("  ", &printable(&summary(finding)), 2, to)?;
        for evidence in &finding.evidence {
            let ago = Duration(now.saturating_since(evidence.boot_ns));
            let source = match evidence.source {
                EvidenceSource::Hook => format!("hook, {ago} ago"),
                EvidenceSource::Snapshot => "snapshot".to_owned(),
                EvidenceSource::Proc => format!("/proc, {ago} ago"),
            };
            line("    ", &format!("{} [{source}]", printable(&fact(evidence, now))), 6, to)?;
        }
        if let Some(advice) = advice(finding) {
            line("  advice: ", advice, 10, to)?;
        }
        for command in &finding.next {
            line("  next: ", &printable(command), 8, to)?;
        }
    }
    Ok(())
}

/// "for 12.2 s", or "1.5 s ago" if it is about a moment.
pub(super) fn when(id: Diagnosis, since: impl Display) -> String {
    if id.is_momentary() { format!("{since} ago") } else { format!("for {since}") }
}

/// The problem in one sentence.
pub fn summary(finding: &Finding) -> String {
    let who = finding.process.as_ref().map_or_else(|| "a process".to_owned(), |it| Who(it).to_string());
    match finding.id {
        Diagnosis::ZombiesNotReaped => {
            let count = find(finding, |fact| match fact {
                Fact::Zombies { count, .. } => Some(*count),
                _ => None,
            });
            let is_init = finding.process.as_ref().is_some_and(|it| {
                it.pids.last() == Some(&1) && finding.ns.as_ref().is_some_and(|ns| ns.inum == it.ns)
            });
            let reaper = if is_init { format!("PID 1, {who},") } else { who };
            format!("{reaper} does not reap {}", Count(count.unwrap_or(0), "zombie", "zombies"))
        }
        Diagnosis::TeardownBlocked => {
            let blockers = finding.evidence.iter().filter_map(|evidence| blocker(&evidence.fact));
            let more = match processes_left_out(finding) {
                0 => String::new(),
                more => format!("; and {more} more"),
            };
            format!("PID 1 has ended and waits for {}{more}", blockers.collect::<Vec<_>>().join("; "))
        }
        Diagnosis::NamespaceDeadFork => {
            let forker = refused_process(finding).map_or(who, |it| Who(it).to_string());
            format!("{forker} cannot fork: PID 1 of the namespace has ended. ENOMEM is not about memory here")
        }
        Diagnosis::InitIgnoredSignal => {
            let signal = find(finding, |fact| match fact {
                Fact::Signal { signal, sender, .. } => Some((signal.clone(), sender.clone())),
                _ => None,
            });
            let (signal, sender) = signal.unwrap_or_default();
            let sender = sender.map(|sender| format!(" from {}", Who(&sender))).unwrap_or_default();
            format!(
                "PID 1, {who}, ignored {}{sender}: it has no handler for it, or ignores it",
                printable(&signal)
            )
        }
        Diagnosis::InitKilled => {
            let death = find(finding, |fact| match fact {
                Fact::InitExit { exit, cause, members, .. } => {
                    Some(format!("{}, with {}", Death { exit, cause }, members_with_it(*members)))
                }
                _ => None,
            });
            format!("PID 1, {who}, was killed: {}", death.unwrap_or_default())
        }
        Diagnosis::PidExhaustion => {
            let limit = find(finding, |fact| match fact {
                Fact::Limit { limit, .. } => Some(reached(limit)),
                _ => None,
            });
            match (refused_process(finding), limit) {
                (Some(process), Some(limit)) => format!("{} cannot fork: {limit}", Who(process)),
                (Some(process), None) => format!("{} cannot fork: a limit on PIDs is reached", Who(process)),
                (None, limit) => format!("few PIDs are left: {}", limit.unwrap_or_default()),
            }
        }
        Diagnosis::CreationRefused => {
            let refused = find(finding, |fact| match fact {
                Fact::RefusedCreation { process, reason, .. } => Some((process.clone(), reason.clone())),
                _ => None,
            });
            // The first limit is that of the first refusal.
            let limit = find(finding, |fact| match fact {
                Fact::Limit { limit, .. } => Some(reached(limit)),
                _ => None,
            });
            let Some((process, reason)) = refused else { return String::new() };
            let why = limit.filter(|_| reason == "count_limit").unwrap_or_else(|| creation_reason(&reason));
            format!("{} cannot create a PID namespace: {why}", Who(&process))
        }
        Diagnosis::NamespaceLeaked => {
            let first = match finding.evidence.first().map(|evidence| &evidence.fact) {
                Some(Fact::Holder { holder }) => held_by(holder),
                Some(Fact::Process { process, .. }) => {
                    format!("its PID 1, which {} has not reaped", Who(process))
                }
                _ => "an unknown holder".to_owned(),
            };
            let holders = finding.evidence.iter().map(|evidence| match &evidence.fact {
                Fact::Holder { .. } => 1,
                Fact::HoldersLeftOut { count } => *count,
                _ => 0,
            });
            let more = holders.sum::<u64>().saturating_sub(1);
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            let it = if finding.ns.is_some() { "it" } else { "a namespace" };
            format!("no process is in {it}; kept by {first}{more}")
        }
        Diagnosis::JoinedLeftover => match finding.severity {
            // Its age is the only evidence.
            Severity::Info => {
                format!("{who} came from outside and still runs; its session may be over")
            }
            Severity::Warning | Severity::Critical => {
                format!("{who} came from outside, and the process that started it is gone")
            }
        },
        Diagnosis::CreatorLeftover => format!("{who} is still running, although its namespace is gone"),
        Diagnosis::NoCascade => {
            let is_survivor = |evidence: &&Evidence| match &evidence.fact {
                Fact::Process { role, .. } => *role == Role::Survivor,
                _ => false,
            };
            let listed = finding.evidence.iter().filter(is_survivor).count() as u64;
            match listed + processes_left_out(finding) {
                0 => format!("{who} is not PID 1 of its own namespace: its end kills no other process"),
                living => format!(
                    "the main process {who} has ended, and {} on",
                    Count(living, "process of its container lives", "processes of its container live")
                ),
            }
        }
        Diagnosis::ProcMismatch => {
            let shown = find(finding, |fact| match fact {
                Fact::ProcShows { ns, path } => Some(format!("{} shows {ns}", path.for_terminal())),
                _ => None,
            });
            format!("{who} is in another namespace than its /proc: {}", shown.unwrap_or_default())
        }
        Diagnosis::ThreadGrowth => {
            let threads = find(finding, |fact| match fact {
                Fact::Threads { threads, .. } => Some(*threads),
                _ => None,
            });
            format!("{who} has {} of the PIDs in use", Count(threads.unwrap_or(0), "thread", "threads"))
        }
        Diagnosis::NearDepthLimit => {
            let depth = find(finding, |fact| match fact {
                Fact::Depth { level, limit } => Some(format!("level {level} of {limit}")),
                _ => None,
            });
            format!("it is deeply nested: {}", depth.unwrap_or_default())
        }
        Diagnosis::MemberOomKilled => {
            let killed = find(finding, |fact| match fact {
                Fact::OomKill { process, count } => Some((Who(process).to_string(), *count)),
                _ => None,
            });
            let (who, count) = killed.unwrap_or((who, 1));
            let killed = match count {
                0 | 1 => format!("{who} was killed"),
                _ => format!("{who} and {} more were killed", count - 1),
            };
            format!("memory ran out and {killed}, while PID 1 survived")
        }
        Diagnosis::ChildrenElsewhere => match refused_process(finding) {
            Some(_) => format!("{who} cannot create threads: its children start in another PID namespace"),
            None => format!("children of {who} start in another PID namespace, but it has forked none there"),
        },
    }
}

/// How to avoid the problem, if that is the same each time.
fn advice(finding: &Finding) -> Option<&'static str> {
    let is_of_init = |process: &Process| process.is_nested_init();
    match finding.id {
        Diagnosis::ZombiesNotReaped if finding.process.as_ref().is_some_and(is_of_init) => {
            Some("run an init that reaps as PID 1: docker run --init, podman run --init, tini, catatonit")
        }
        _ => None,
    }
}

fn find<T>(finding: &Finding, what: impl Fn(&Fact) -> Option<T>) -> Option<T> {
    finding.evidence.iter().find_map(|evidence| what(&evidence.fact))
}

/// Number of processes that the facts leave out.
fn processes_left_out(finding: &Finding) -> u64 {
    let left_out = |fact: &Fact| match fact {
        Fact::ProcessesLeftOut { count } => Some(*count),
        _ => None,
    };
    find(finding, left_out).unwrap_or(0)
}

fn refused_process(finding: &Finding) -> Option<&Process> {
    finding.evidence.iter().find_map(|evidence| match &evidence.fact {
        Fact::RefusedFork { process, .. } => Some(process),
        _ => None,
    })
}

fn members_with_it(members: u32) -> String {
    if members == 0 {
        return "no other process in it".to_owned();
    }
    Count(u64::from(members), "other PID in use", "other PIDs in use").to_string()
}

fn creation_reason(reason: &str) -> String {
    match reason {
        "depth_limit" => "32 levels are the deepest".to_owned(),
        "count_limit" => "a limit on the number of namespaces is reached".to_owned(),
        other => other.replace('_', " "),
    }
}

pub(super) fn blocker(fact: &Fact) -> Option<String> {
    let Fact::Blocker { process, by, keeper, wchan } = fact else { return None };
    let keeper = || keeper.as_ref().map_or_else(|| "an unknown process".to_owned(), |it| Who(it).to_string());
    let sleeps = || wchan.as_ref().map(|wchan| format!(", in {}", wchan.for_terminal())).unwrap_or_default();
    let why = match by {
        BlockedBy::Parent => format!("a zombie: its parent outside, {}, has not waited for it", keeper()),
        BlockedBy::Tracer => format!("traced by {}", keeper()),
        BlockedBy::Freezer => format!("frozen{}: thaw its cgroup", sleeps()),
        BlockedBy::Kernel => format!("in uninterruptible sleep (state D){}", sleeps()),
        BlockedBy::OwnNamespace => "PID 1 of a nested namespace, which waits too".to_owned(),
        BlockedBy::Unknown => format!("for an unknown reason{}", sleeps()),
    };
    Some(format!("{} ({why})", Who(process)))
}

fn names(list: &[NameCount]) -> String {
    list.iter()
        .map(|NameCount { comm, count }| format!("{count} {}", comm.for_terminal()))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A fact as a sentence.
fn fact(evidence: &Evidence, now: BootNs) -> String {
    match &evidence.fact {
        Fact::Zombies { count, oldest_boot_ns, orphans, names: list, forked_by } => {
            let age = Duration(now.saturating_since(*oldest_boot_ns));
            let forked_by = match forked_by.is_empty() {
                true => String::new(),
                false => format!("; forked by {}", names(forked_by)),
            };
            let orphans = match orphans {
                0 => String::new(),
                orphans => format!(", {}", Count(*orphans, "of them an orphan", "of them orphans")),
            };
            format!(
                "{}{orphans}, the oldest for {age}: {}{forked_by}",
                Count(*count, "zombie", "zombies"),
                names(list)
            )
        }
        Fact::Young { count, names: list, forked_by } => {
            let forked_by = match forked_by.is_empty() {
                true => String::new(),
                false => format!("; forked by {}", names(forked_by)),
            };
            let processes = Count(*count, "process", "processes");
            format!("{processes} of the last minute still running: {}{forked_by}", names(list))
        }
        Fact::Lives { births, exits, reaps } => format!(
            "in the last minute {} forked, {} ended, {} reaped (in 15 min: {}, {}, {})",
            births.in_1_min,
            exits.in_1_min,
            reaps.in_1_min,
            births.in_15_min,
            exits.in_15_min,
            reaps.in_15_min
        ),
        Fact::Process { role, process, ended } => {
            let role = match role {
                Role::Reaper => "must reap them",
                Role::Creator => "the runtime's helper",
                Role::Parent => "its parent now",
                Role::Forker => "forked it",
                Role::Main => "the container's main process",
                Role::Survivor => "is still alive",
            };
            format!("{}: {role}{}", Who(process), if *ended { ", has ended" } else { "" })
        }
        Fact::Limit { limit, growth_per_minute, seconds_left } => {
            let growth = growth_per_minute.map(|growth| format!(", {growth} more a minute"));
            let left = seconds_left
                .map(|left| format!(", reached in {}", Duration(left.saturating_mul(1_000_000_000))));
            format!("{}{}{}", reached(limit), growth.unwrap_or_default(), left.unwrap_or_default())
        }
        Fact::InitExit { process, exit, cause, members } => {
            format!(
                "PID 1, {}, ended: {}, with {}",
                Who(process),
                Death { exit, cause },
                members_with_it(*members)
            )
        }
        Fact::Teardown { killed, nested, duration_ns } => format!(
            "{} within {}{}",
            Count(u64::from(*killed), "member was killed", "members were killed"),
            Duration(*duration_ns),
            match nested.len() {
                0 => String::new(),
                count => format!(", with {}", Count(count as u64, "nested namespace", "nested namespaces")),
            }
        ),
        Fact::Blocker { .. } => blocker(&evidence.fact).unwrap_or_default(),
        Fact::RefusedFork { process, errno, reason, thread, elsewhere_by, count } => format!(
            "{} {} {} with {errno} ({}{})",
            Who(process),
            if *thread { "could not create a thread," } else { "could not fork," },
            times(*count),
            reason.replace('_', " "),
            elsewhere_by.as_ref().map(|call| format!(", entered by {call}")).unwrap_or_default()
        ),
        Fact::RefusedCreation { process, via, errno, reason, count } => format!(
            "{} was refused {via} {} with {errno}: {}",
            Who(process),
            times(*count),
            creation_reason(reason)
        ),
        Fact::Namespaces { user_ns, count, without_process, names: list } => {
            let empty = match without_process {
                0 => String::new(),
                count => format!(", {count} without a process"),
            };
            let inits = if list.is_empty() { String::new() } else { format!("; PID 1: {}", names(list)) };
            format!(
                "user namespace {user_ns} has {}{empty}{inits}",
                Count(*count, "PID namespace", "PID namespaces")
            )
        }
        Fact::Signal { signal, sender, from, fate, count } => format!(
            "{signal} {} from {} ({}): {fate}",
            times(*count),
            sender.as_ref().map_or_else(|| "the kernel".to_owned(), |sender| Who(sender).to_string()),
            signal_origin(from)
        ),
        Fact::Holder { holder } => held_by(holder),
        Fact::HoldersLeftOut { count } => format!("{count} more"),
        Fact::ProcessesLeftOut { count } => format!("{} more", Count(*count, "process", "processes")),
        Fact::Depth { level, limit } => format!("level {level}; the deepest is {limit}"),
        Fact::Threads { process, threads } => format!("{} has {threads} threads", Who(process)),
        Fact::ChildrenGoTo { process, ns } => format!("children of {} start in {ns}", Who(process)),
        Fact::ProcShows { ns, path } => format!("the proc at {} shows {ns}", path.for_terminal()),
        Fact::OomKill { process, .. } => format!("{} was killed", Who(process)),
        Fact::Unseen { what } => format!("not seen: {what}"),
    }
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}
