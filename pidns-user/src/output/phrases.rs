//! Phrases shared by the views for people: processes, their ends, times.

use std::fmt::{self, Display};

use crate::{
    event::identity::HostPid,
    event::snapshot::SnapshotProcess,
    event::{Cause, Exit, Process},
    model::Origin,
    text::{Name, or_unknown, printable},
};

/// "48121 → 7 → 1".
pub(super) fn pids(pids: &[u32]) -> String {
    pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" → ")
}

/// "depth_limit" as a phrase.
pub(super) fn spaced(reason: &str) -> String {
    reason.replace('_', " ")
}

/// "outside": where a signal came from. JSON calls it "ancestor", because the sender is in an ancestor of the namespace.
pub(super) fn signal_origin(from: &str) -> String {
    match from {
        "ancestor" => "outside".to_owned(),
        other => spaced(other),
    }
}

/// "runc[811]".
pub(super) struct Who<'a>(pub(super) &'a Process);

impl Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.0.comm.for_terminal(), self.0.pid)
    }
}

/// "runc[811]", for a process of a snapshot.
pub(super) fn who(process: &SnapshotProcess) -> String {
    format!("{}[{}]", process.name(), process.pid)
}

/// "joined: forked by nsenter[16757] in 4026531836" or "its parent is outside: systemd[1] in 4026531836": how a process
/// entered its namespace, as far as events or the snapshot show it.
pub(super) fn from_outside(
    forked_by: Option<HostPid>,
    parent: Option<HostPid>,
    origin: Option<Origin<'_>>,
) -> String {
    let named = |pid: HostPid| {
        let origin = origin.filter(|origin| origin.pid == pid);
        let from = origin.and_then(|origin| origin.ns).map(|ns| format!(" in {ns}")).unwrap_or_default();
        format!("{}[{pid}]{from}", or_unknown(origin.and_then(|origin| origin.comm)))
    };
    match (forked_by, parent.or(origin.map(|origin| origin.pid))) {
        (Some(forker), _) => format!("joined: forked by {}", named(forker)),
        (None, Some(parent)) => format!("its parent is outside: {}", named(parent)),
        (None, None) => "its parent is outside".to_owned(),
    }
}

/// "code 1", "SIGSEGV (core dumped)".
pub(super) struct ExitPhrase<'a>(pub(super) &'a Exit);

impl Display for ExitPhrase<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Exit::Code { code } => write!(f, "code {code}"),
            Exit::Signal { signal, core } => {
                write!(f, "{}{}", printable(signal), if *core { " (core dumped)" } else { "" })
            }
        }
    }
}

/// "SIGKILL from dockerd[811]": the end of a PID 1 and its cause.
pub(super) struct Death<'a> {
    pub(super) exit: &'a Exit,
    pub(super) cause: &'a Cause,
}

impl Display for Death<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", ExitPhrase(self.exit))?;
        match self.cause {
            Cause::Exited => Ok(()),
            Cause::Signal { sender: Some(sender), .. } => write!(f, " from {}", Who(sender)),
            Cause::Signal { sender: None, .. } => f.write_str(" from the kernel"),
            Cause::ParentDeath { parent, thread, .. } => {
                write!(f, " {}", ParentDeath { parent, thread: *thread })
            }
            Cause::Cascade { ns } => write!(f, " with the outer namespace {ns}"),
            Cause::Reboot { command } => write!(f, ", reboot(2) inside: {}", printable(command)),
            Cause::Oom { .. } => f.write_str(" because memory ran out"),
            Cause::Fault { .. } => f.write_str(", its own fault"),
            Cause::Unknown => f.write_str(", its sender was not seen"),
        }
    }
}

/// "as its parent unshare[811] ended (PR_SET_PDEATHSIG)": the reason for a signal that the process had requested.
pub(super) struct ParentDeath<'a> {
    pub(super) parent: &'a Process,
    /// Whether only the thread that forked the process has ended, and the parent's other threads continue.
    pub(super) thread: bool,
}

impl Display for ParentDeath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parent = Who(self.parent);
        if self.thread {
            write!(f, "as the thread of {parent} that had forked it ended (PR_SET_PDEATHSIG)")
        } else {
            write!(f, "as its parent {parent} ended (PR_SET_PDEATHSIG)")
        }
    }
}

/// Arguments of a program, and whether there are more.
pub(super) struct Arguments<'a>(pub(super) &'a [Name], pub(super) bool);

impl Display for Arguments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for argument in self.0 {
            // The quotes only hint at the end of an argument; JSON is exact.
            let bytes = argument.as_bytes();
            let quote = if bytes.is_empty() || bytes.contains(&b' ') { "'" } else { "" };
            write!(f, " {quote}{}{quote}", argument.for_terminal())?;
        }
        if self.1 { f.write_str(" …") } else { Ok(()) }
    }
}

/// "1.9 ms", "3.4 s", "2m05s", "3d04h".
pub(super) struct Duration(pub(super) u64);

impl Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0;
        let seconds = ns / 1_000_000_000;
        match ns {
            0..1_000_000 => write!(f, "{} µs", ns / 1_000),
            1_000_000..1_000_000_000 => write!(f, "{:.1} ms", ns as f64 / 1e6),
            1_000_000_000..60_000_000_000 => write!(f, "{:.2} s", ns as f64 / 1e9),
            60_000_000_000..3_600_000_000_000 => write!(f, "{}m{:02}s", seconds / 60, seconds % 60),
            3_600_000_000_000..86_400_000_000_000 => {
                write!(f, "{}h{:02}m", seconds / 3600, seconds / 60 % 60)
            }
            _ => write!(f, "{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short_at_any_size() {
        let shown: Vec<String> =
            [1_500, 1_900_000, 13_970_000_000, 125_000_000_000, 4_000_000_000_000, 273_600_000_000_000]
                .map(|ns| Duration(ns).to_string())
                .to_vec();
        assert_eq!(shown, ["1 µs", "1.9 ms", "13.97 s", "2m05s", "1h06m", "3d04h"]);
    }
}
