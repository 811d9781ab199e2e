//! The last signals that reached each init, and those that end other processes: one may turn out to be what killed it.

use std::collections::HashMap;

use pidns_ebpf::abi::{Origin, SignalBody, decode};

use crate::event::identity::ProcessKey;
use crate::event::{Cause, Process};
use crate::signals::signal_name;

/// Most processes whose signals are remembered.
const LIMIT: usize = 10_000;

/// A signal that reached a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenSignal {
    /// Its number.
    pub signal: u32,
    /// `si_code`: above 0 the kernel reports a fault.
    pub code: i32,
    /// Where from.
    pub origin: Origin,
    /// Who; `None` for the kernel. With [`Origin::ParentDeath`] the parent that ended.
    pub sender: Option<Process>,
    /// Of a parent's end: whether the parent's process goes on without the thread that had forked the init.
    pub thread: bool,
}

impl SeenSignal {
    /// A signal to this process.
    pub(super) fn of(
        subject: &decode::Process<'_>,
        sender: Option<&decode::Process<'_>>,
        body: SignalBody,
    ) -> Self {
        let SignalBody { signal, code, fate: _, origin } = body;
        Self {
            signal,
            code,
            origin: Origin::from_number(origin).unwrap_or(Origin::Kernel),
            sender: sender.map(super::process),
            // The kernel has given it to another thread of the parent's process, if there is one.
            thread: sender.is_some_and(|sender| sender.part.pid == subject.part.parent_pid),
        }
    }
}

/// By process.
#[derive(Debug, Default)]
pub(super) struct Signals(HashMap<ProcessKey, Vec<SeenSignal>>);

impl Signals {
    /// A signal was delivered to this process.
    pub(super) fn signalled(&mut self, process: ProcessKey, seen: SeenSignal) {
        if self.0.len() >= LIMIT && !self.0.contains_key(&process) {
            // Those that died unseen, after a loss: none of the rest is worth more than another.
            self.0.clear();
        }
        let signals = self.0.entry(process).or_default();
        signals.retain(|earlier| earlier.signal != seen.signal);
        signals.push(seen);
    }

    /// The process died of this signal: why, as far as it was seen. Forgets the process.
    pub(super) fn died_of(&mut self, process: ProcessKey, signal: u32) -> Cause {
        let seen = self.0.remove(&process).into_iter().flatten().find(|seen| seen.signal == signal);
        match seen {
            None => Cause::Unknown,
            Some(SeenSignal { origin: Origin::Kernel, code, .. }) if code > 0 && is_fault(signal) => {
                Cause::Fault { signal: signal_name(signal) }
            }
            Some(SeenSignal { origin: Origin::ParentDeath, sender: Some(parent), thread, .. }) => {
                Cause::ParentDeath { signal: signal_name(signal), parent, thread }
            }
            Some(SeenSignal { sender, .. }) => Cause::Signal { signal: signal_name(signal), sender },
        }
    }

    /// The process ended otherwise.
    pub(super) fn forget(&mut self, process: ProcessKey) {
        self.0.remove(&process);
    }
}

fn is_fault(signal: u32) -> bool {
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS]
        .contains(&(signal as i32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::identity::{BootNs, HostPid};

    const INIT: ProcessKey = ProcessKey::new(HostPid(1), BootNs(1));

    fn seen(signal: i32, code: i32, origin: Origin) -> SeenSignal {
        SeenSignal { signal: signal as u32, code, origin, sender: None, thread: false }
    }

    #[test]
    fn a_death_without_a_seen_signal_has_no_cause() {
        assert_eq!(Signals::default().died_of(INIT, 9), Cause::Unknown);
    }

    #[test]
    fn the_cause_of_a_kernel_signal_is_known_only_for_faults() {
        let mut signals = Signals::default();
        signals.signalled(INIT, seen(libc::SIGSEGV, 1, Origin::Kernel));
        assert_eq!(signals.died_of(INIT, 11), Cause::Fault { signal: "SIGSEGV".to_owned() });
        signals.signalled(INIT, seen(libc::SIGKILL, 0, Origin::Kernel));
        assert_eq!(
            signals.died_of(INIT, 9),
            Cause::Signal { signal: "SIGKILL".to_owned(), sender: None },
            "such as the limit of processor time"
        );
    }

    #[test]
    fn another_signal_than_the_one_it_died_of_is_no_cause() {
        let mut signals = Signals::default();
        signals.signalled(INIT, seen(libc::SIGTERM, 0, Origin::Inside));
        assert_eq!(signals.died_of(INIT, 9), Cause::Unknown);
    }

    #[test]
    fn a_segv_that_a_process_sent_is_no_fault() {
        let mut signals = Signals::default();
        signals.signalled(INIT, seen(libc::SIGSEGV, 0, Origin::Ancestor));
        assert!(matches!(signals.died_of(INIT, 11), Cause::Signal { .. }));
    }
}
