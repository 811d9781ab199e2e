//! The last signals that reached each init: one of them may turn out to be what killed it.

use std::collections::HashMap;

use pidns_ebpf::abi::Origin;

use crate::event::identity::ProcessKey;
use crate::event::{Cause, Process};
use crate::signals::signal_name;

/// Most inits whose signals are remembered.
const LIMIT: usize = 10_000;

/// A signal that reached an init.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenSignal {
    /// Its number.
    pub signal: u32,
    /// `si_code`: above 0 the kernel tells what it forbids.
    pub code: i32,
    /// Where from.
    pub origin: Origin,
    /// Who; `None` for the kernel. With [`Origin::ParentDeath`] the parent that ended.
    pub sender: Option<Process>,
    /// Of a parent's end: whether the parent's process goes on without the thread that had forked the init.
    pub thread: bool,
}

/// By init.
#[derive(Debug, Default)]
pub(super) struct Inits(HashMap<ProcessKey, Vec<SeenSignal>>);

impl Inits {
    /// A signal was delivered to this init.
    pub(super) fn signalled(&mut self, init: ProcessKey, seen: SeenSignal) {
        if self.0.len() >= LIMIT && !self.0.contains_key(&init) {
            // Inits that died unseen, after a loss: none of the rest is worth more than another.
            self.0.clear();
        }
        let signals = self.0.entry(init).or_default();
        signals.retain(|earlier| earlier.signal != seen.signal);
        signals.push(seen);
    }

    /// The init died of this signal: why, as far as it was seen. Forgets the init.
    pub(super) fn died_of(&mut self, init: ProcessKey, signal: u32) -> Cause {
        let seen = self.0.remove(&init).into_iter().flatten().find(|seen| seen.signal == signal);
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

    /// The init ended otherwise.
    pub(super) fn forget(&mut self, init: ProcessKey) {
        self.0.remove(&init);
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
        assert_eq!(Inits::default().died_of(INIT, 9), Cause::Unknown);
    }

    #[test]
    fn the_kernel_tells_a_fault_but_not_why_else_it_sends() {
        let mut inits = Inits::default();
        inits.signalled(INIT, seen(libc::SIGSEGV, 1, Origin::Kernel));
        assert_eq!(inits.died_of(INIT, 11), Cause::Fault { signal: "SIGSEGV".to_owned() });
        inits.signalled(INIT, seen(libc::SIGKILL, 0, Origin::Kernel));
        assert_eq!(
            inits.died_of(INIT, 9),
            Cause::Signal { signal: "SIGKILL".to_owned(), sender: None },
            "the limit of processor time, say"
        );
    }

    #[test]
    fn another_signal_than_the_one_it_died_of_is_no_cause() {
        let mut inits = Inits::default();
        inits.signalled(INIT, seen(libc::SIGTERM, 0, Origin::Inside));
        assert_eq!(inits.died_of(INIT, 9), Cause::Unknown);
    }

    #[test]
    fn a_segv_that_a_process_sent_is_no_fault() {
        let mut inits = Inits::default();
        inits.signalled(INIT, seen(libc::SIGSEGV, 0, Origin::Ancestor));
        assert!(matches!(inits.died_of(INIT, 11), Cause::Signal { .. }));
    }
}
