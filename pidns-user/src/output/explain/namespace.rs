//! Describes a namespace in sentences.

use std::io;

use super::{Page, awaited, condition_of, from_outside, level_text, must_reap, numbered, state_text};
use crate::{
    event::snapshot::{Holder, SnapshotNamespace},
    event::{Body, Cause, Event, identity::BootNs},
    explanation::{Below, EarlierNamespace, Joiner, NamespaceFacts, OtherContainer, State, Zombie},
    output::{
        forest::held_by,
        phrases::{Death, Duration, ExitPhrase, who},
    },
    text::Count,
};

pub(super) fn write(facts: &NamespaceFacts, sheet: &mut Page<'_>) -> io::Result<()> {
    let NamespaceFacts {
        ns,
        state,
        earlier,
        lineage,
        doubts,
        init,
        processes,
        states,
        zombies,
        other_containers,
        joined,
        waits_for,
        below,
        holders,
        holders_left_out: _,
    } = facts;
    let container = ns.container.as_deref();
    let label = container.map(|container| format!(" ({})", container.label().for_terminal()));
    sheet.head(format_args!("Namespace {}{}", ns.inum, label.unwrap_or_default()))?;
    let described = state_of(facts, sheet);
    sheet.line("State", described)?;
    identity(ns, sheet)?;
    let earlier: Vec<String> = earlier.iter().map(|earlier| earlier_of(earlier, sheet)).collect();
    sheet.list("Before it", &earlier)?;
    sheet.line("Lineage", lineage_of(ns, lineage))?;
    let owner = ns.owner_uid.map(|uid| format!("uid {uid}"));
    match (ns.user_ns, owner) {
        (Some(user_ns), Some(owner)) => {
            sheet.line("Owner", format_args!("user namespace {user_ns}, which is {owner}'s"))?;
        }
        (_, Some(owner)) => sheet.line("Owner", owner)?,
        (_, None) => {}
    }
    sheet.container(container, doubts)?;
    let others: Vec<String> = other_containers.iter().map(other_of).collect();
    sheet.list("Also in it", &others)?;
    let is_gone = matches!(state, Some(State::Gone { .. } | State::Ended { .. }));
    if let Some(init) = init {
        let by_letter = || init.state.map(|state| state_text(state).to_owned());
        let state = match init.is_zombie() {
            true => Some("zombie".to_owned()),
            false => condition_of(init).or_else(by_letter),
        };
        let state = state.map(|state| format!(", {state}")).unwrap_or_default();
        let since = init.start_boot_ns.map(|start| format!(", started {}", sheet.ago(start)));
        sheet.line("PID 1", format_args!("{}{state}{}", numbered(init), since.unwrap_or_default()))?;
    } else if !is_gone {
        sheet.line("PID 1", "none visible")?;
    }
    if !is_gone {
        let each: Vec<String> = states.iter().map(|(state, count)| in_state(*state, *count, facts)).collect();
        let unknown = processes - states.values().sum::<usize>();
        let unknown = (unknown > 0 && !states.is_empty()).then(|| format!("{unknown} of unknown state"));
        let each: Vec<String> = each.into_iter().chain(unknown).collect();
        // Events only report the state of zombies; the other states come from a snapshot.
        let is_from_snapshot = states.keys().any(|state| !matches!(state, 'Z' | 'X'));
        let when = if is_from_snapshot && sheet.is_of_a_recording() { " (at the last snapshot)" } else { "" };
        let each = if each.is_empty() { String::new() } else { format!(": {}{when}", each.join(", ")) };
        sheet.line("Processes", format_args!("{processes}{each}"))?;
    }
    let zombies: Vec<String> = zombies.iter().map(|zombie| zombie_of(zombie, sheet)).collect();
    sheet.list("Zombies", &zombies)?;
    sheet.list("Waits for", &awaited(waits_for))?;
    // For the others we know that their parents are outside, but not how they entered.
    let (seen, others): (Vec<_>, Vec<_>) = joined.iter().partition(|joiner| joiner.forked_by.is_some());
    for (label, joiners) in [("Joined", seen), ("Parents", others)] {
        let line = |joiner: &&Joiner| {
            format!("{}: {}", numbered(&joiner.process), from_outside(joiner).trim_start_matches("joined: "))
        };
        sheet.list(label, &joiners.iter().map(line).collect::<Vec<_>>())?;
    }
    sheet.list("Below", &below.iter().map(below_of).collect::<Vec<_>>())?;
    keeps(facts, holders, is_gone, sheet)
}

/// "another namespace had this number until 14:03:07.120 (docker/web): `--at 2026-11-23T14:03:07.119Z` shows it".
fn earlier_of(earlier: &EarlierNamespace, sheet: &Page<'_>) -> String {
    let EarlierNamespace { ns, gone_boot_ns } = earlier;
    let label = ns.container.as_ref().map(|container| format!(" ({})", container.label().for_terminal()));
    let label = label.unwrap_or_default();
    match gone_boot_ns.or(ns.born_boot_ns) {
        Some(at) => {
            // A moment at which it existed.
            let within = match gone_boot_ns {
                Some(gone) => gone.saturating_sub(1_000_000).max(ns.born_boot_ns.unwrap_or_default()),
                None => at,
            };
            let until = gone_boot_ns.map(|gone| format!(" until {}", sheet.clock(gone, false)));
            format!(
                "another namespace had this number{}{label}: `--at {:.6}` shows it",
                until.unwrap_or_default(),
                sheet.explanation.wall_clock(within)
            )
        }
        None => format!("another namespace had this number{label} at an unknown time"),
    }
}

/// "docker/side: sleep[16750] (16750 → 4)": a container that shares the namespace.
fn other_of(other: &OtherContainer) -> String {
    const NAMED: usize = 3;
    let OtherContainer { container, processes } = other;
    let named: Vec<String> = processes.iter().take(NAMED).map(numbered).collect();
    let more = processes.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}: {}{more}", container.label().for_terminal(), named.join(", "))
}

/// Its state and the consequences.
fn state_of(facts: &NamespaceFacts, sheet: &Page<'_>) -> String {
    let end = sheet.explanation.history.as_ref().and_then(|history| history.end.as_ref());
    match &facts.state {
        Some(State::Alive) => "alive: its PID 1 runs".to_owned(),
        Some(State::Empty) => "no process yet: the first process that is forked there will be its PID 1".to_owned(),
        Some(State::Dying { since_boot_ns, cause }) => dying(facts, *since_boot_ns, cause.as_ref(), sheet),
        Some(State::Held { since_boot_ns }) => format!(
            "without processes since {}{}. No process can fork there any more, and it exists as long as a holder \
             keeps it",
            sheet.clock(*since_boot_ns, false),
            init_ended(end, sheet)
        ),
        Some(State::Ended { since_boot_ns }) => format!(
            "ended: without processes since {}{}. Whether a holder still keeps it is unknown",
            sheet.clock(*since_boot_ns, false),
            init_ended(end, sheet)
        ),
        Some(State::Gone { since_boot_ns }) => {
            let since = since_boot_ns.map(|since| format!(" since {}", sheet.clock(since, false)));
            let lived = since_boot_ns.zip(facts.ns.born_boot_ns);
            let lived =
                lived.map(|(gone, born)| format!(", having lived {}", Duration(gone.saturating_since(born))));
            format!("gone{}{}{}", since.unwrap_or_default(), lived.unwrap_or_default(), init_ended(end, sheet))
        }
        None if facts.processes == 0 => {
            "without processes: it has had none yet, or its PID 1 has ended, and then no process can fork there any more"
                .to_owned()
        }
        None => "unknown".to_owned(),
    }
}

/// The state of a dying namespace.
fn dying(facts: &NamespaceFacts, since: Option<BootNs>, cause: Option<&Cause>, sheet: &Page<'_>) -> String {
    let end = sheet.explanation.history.as_ref().and_then(|history| history.end.as_ref());
    let since = since.map(|since| format!(" {}", sheet.ago(since))).unwrap_or_default();
    let is_over = facts.init.as_ref().is_some_and(|init| init.is_zombie());
    let is_exiting = facts.init.as_ref().is_some_and(|init| init.exiting);
    match cause {
        Some(Cause::Cascade { ns }) if !is_over && !is_exiting => format!(
            "dying with its ancestor {ns}, whose PID 1 is exiting: the kernel has sent SIGKILL to all its processes, \
             including its PID 1"
        ),
        _ if is_over => format!(
            "dying: its PID 1 has ended{since}{}, all others are gone, and the PID 1 must be reaped. No process can fork there \
             any more (ENOMEM)",
            cause_of(end)
        ),
        _ => format!(
            "dying: its PID 1 {}{}. No process can fork there any more (ENOMEM), all members are killed, and its end waits \
             until each is reaped: {}",
            if since.is_empty() { "is exiting".to_owned() } else { format!("began to exit{since}") },
            cause_of(end),
            Count(facts.waits_for.len() as u64, "process is left", "processes are left")
        ),
    }
}

/// ", its PID 1 ended at 14:03:07.120: SIGKILL from bash[811], 6 PIDs left".
fn init_ended(end: Option<&Event>, sheet: &Page<'_>) -> String {
    match end {
        Some(event) => format!(", its PID 1 ended at {}{}", sheet.clock(event.boot_ns, false), cause_of(end)),
        None => ", and the end of its PID 1 was not seen".to_owned(),
    }
}

/// ": SIGKILL from bash[811], 6 PIDs left".
fn cause_of(end: Option<&Event>) -> String {
    match end.map(|event| &event.body) {
        Some(Body::NamespaceInitExit { exit, cause, members, .. }) => {
            format!(": {}, {}", Death { exit, cause }, Count(u64::from(*members), "PID left", "PIDs left"))
        }
        _ => String::new(),
    }
}

fn identity(ns: &SnapshotNamespace, sheet: &mut Page<'_>) -> io::Result<()> {
    let id = ns.kernel_id.map(|id| format!("the kernel's own id for it, never reused, is {id}"));
    match (ns.born_boot_ns, id) {
        (Some(born), Some(id)) => {
            let ago = sheet.ago(born);
            sheet.line("Born", format_args!("{ago}; {id}"))
        }
        (Some(born), None) => {
            let ago = sheet.ago(born);
            sheet.line("Born", ago)
        }
        (None, Some(id)) => sheet.line("Identity", id),
        (None, None) => Ok(()),
    }
}

/// "level 2, in 4026532178 (level 1), in 4026531836 (the host)".
fn lineage_of(ns: &SnapshotNamespace, lineage: &[SnapshotNamespace]) -> String {
    let mut text = format!("level {}", ns.level);
    for outer in lineage {
        text.push_str(&format!(", in {} ({})", outer.inum, level_text(outer.level, Some(outer.inum))));
    }
    match (lineage.last().map_or(ns.level, |outermost| outermost.level), ns.parent) {
        (0, _) => {}
        (_, Some(parent)) if lineage.is_empty() => text.push_str(&format!(", in {parent}")),
        _ => text.push_str(", in an unknown namespace"),
    }
    text
}

fn zombie_of(zombie: &Zombie, sheet: &Page<'_>) -> String {
    let Zombie { process, wait } = zombie;
    let since = wait.since_boot_ns.map(|since| format!(" for {}", sheet.since(since))).unwrap_or_default();
    let exit = wait.exit.as_ref().map(|exit| format!(" ({})", ExitPhrase(exit))).unwrap_or_default();
    format!("{}{since}{exit}: {}", numbered(process), must_reap(process, wait))
}

fn below_of(below: &Below) -> String {
    let Below { ns, processes, init } = below;
    let init = init.as_ref().map(|init| format!(", PID 1 is {}", who(init))).unwrap_or_default();
    format!("{} (level {}): {}{init}", ns.inum, ns.level, Count(*processes as u64, "process", "processes"))
}

/// Writes the holders.
fn keeps(facts: &NamespaceFacts, holders: &[Holder], is_gone: bool, sheet: &mut Page<'_>) -> io::Result<()> {
    let mut all = Vec::new();
    if facts.processes > 0 {
        all.push(Count(facts.processes as u64, "process in it", "processes in it").to_string());
    }
    all.extend(holders.iter().map(held_by));
    // If holders were not read, nested namespaces are still holders. (If some holders were omitted, nested namespaces
    // may be among these.)
    for child in facts.below.iter().filter(|below| below.ns.parent == Some(facts.ns.inum)) {
        if facts.holders_left_out == 0 && !holders.contains(&Holder::Child { ns: child.ns.inum }) {
            all.push(held_by(&Holder::Child { ns: child.ns.inum }));
        }
    }
    if all.is_empty() && !is_gone {
        all.push("an unknown holder".to_owned());
    }
    let from_kernel =
        |holder: &Holder| matches!(holder, Holder::PidForChildren { .. } | Holder::Child { .. });
    if sheet.is_of_a_recording() && !holders.iter().all(from_kernel) {
        all.push("as of the last snapshot".to_owned());
    }
    sheet.list("Kept by", &all)?;
    match facts.holders_left_out {
        0 => Ok(()),
        more => sheet.line("", format_args!("and {more} more, which are not listed")),
    }
}

/// "3 S (sleeping), 1 exiting". If only the first thread of a process has ended, the letter does not describe the
/// process.
fn in_state(state: char, count: usize, facts: &NamespaceFacts) -> String {
    let is_exiting = facts.init.as_ref().is_some_and(|init| init.exiting && init.state == Some(state));
    let others = count.saturating_sub(usize::from(is_exiting));
    let zombies = facts.zombies.iter().filter(|zombie| zombie.process.state == Some(state)).count();
    let letters = match state {
        _ if others == 0 => None,
        'Z' | 'X' if zombies < others => Some(format!(
            "{others} {state} ({zombies} zombies, {} with only their first thread ended)",
            others - zombies
        )),
        _ => Some(format!("{others} {state} ({})", short(state))),
    };
    let exiting = is_exiting.then(|| "1 exiting".to_owned());
    letters.into_iter().chain(exiting).collect::<Vec<_>>().join(", ")
}

/// Meaning of a state's letter, in one word.
fn short(state: char) -> &'static str {
    match state {
        'R' => "running",
        'S' => "sleeping",
        'D' => "uninterruptible",
        'T' => "stopped",
        't' => "traced",
        'Z' | 'X' => "ended",
        'I' => "idle",
        _ => "other",
    }
}
