//! The last signals to each init, and fatal signals to other processes. One of them may turn out to be what killed the
//! process.

use std::collections::HashMap;

use pidns_ebpf::abi::{Origin, SignalBody, decode};

use crate::event::identity::ProcessKey;
use crate::event::{Cause, Process};
use crate::signals::signal_name;

/// Limit for processes whose signals are remembered.
const LIMIT: usize = 10_000;

/// A signal that a process received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenSignal {
    /// Its number.
    pub signal: u32,
    /// `si_code`. Above 0, the kernel reports a fault.
    pub code: i32,
    /// The origin.
    pub origin: Origin,
    /// The sender; `None` for the kernel. With [`Origin::ParentDeath`], the parent that ended.
    pub sender: Option<Process>,
    /// For a parent's end: whether only the thread that forked the init ended, and the parent's process continues.
    pub thread: bool,
}

impl SeenSignal {
    /// A signal to `subject`.
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
            // After its forking thread has ended, the kernel gives the child to another thread of the parent's process,
            // if there is one.
            thread: sender.is_some_and(|sender| sender.part.pid == subject.part.parent_pid),
        }
    }
}

/// Signals by process.
#[derive(Debug, Default)]
pub(super) struct Signals(HashMap<ProcessKey, Vec<SeenSignal>>);

impl Signals {
    /// Records a signal that this process received.
    pub(super) fn signalled(&mut self, process: ProcessKey, seen: SeenSignal) {
        if self.0.len() >= LIMIT && !self.0.contains_key(&process) {
            // These belong to processes whose death was lost. None is more useful than another.
            self.0.clear();
        }
        let signals = self.0.entry(process).or_default();
        signals.retain(|earlier| earlier.signal != seen.signal);
        signals.push(seen);
    }

    /// The process was killed by this signal. Returns the cause as far as it is known, and forgets the process.
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

    /// Forgets a process that ended in another way.
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
    fn a_death_without_a_known_signal_has_no_cause() {
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
            "for example at the limit of processor time"
        );
    }

    #[test]
    fn only_the_signal_that_killed_it_is_a_cause() {
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
