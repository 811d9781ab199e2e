//! Finds ends that no hook reported: zombies that are gone and teardowns that are over.
//!
//! A hook can miss an event (docs/internals/losses.md). Then its entry stays in the kernel side's table of dying
//! namespaces, or in our table of zombies. A sweep checks for each entry whether the process still exists.

use std::collections::{BTreeSet, HashMap};

use aya::{
    Pod,
    maps::{HashMap as BpfHashMap, Map, MapData, MapError},
};
use pidns_ebpf::abi::{Dying, ProcessKey};
use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};

use super::{
    clock::boottime_ns,
    namespace,
    zombies::{self, Unreaped, Zombies},
};
use crate::{
    event::identity::{BootNs, HostPid},
    procfs::Procfs,
};

/// A sweep reports only ends that are older than this, because a hook may report up to 40 ms late.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Limit for zombies that one sweep checks. Real ones stay until their parent reaps them, and each check costs 10 µs.
const BUDGET: usize = 1_000;

/// Number of sweeps that check all zombies, if the table is full.
const ROUND: u64 = (zombies::MAX_ZOMBIES / BUDGET) as u64 + 1;

#[derive(Clone, Copy)]
#[repr(transparent)]
struct DyingEntry(Dying);

// SAFETY: repr(C) with integers, 64 bytes without padding (pidns-ebpf asserts it).
unsafe impl Pod for DyingEntry {}

/// An end that no hook reported.
#[derive(Clone, Debug)]
pub enum Swept {
    /// A zombie is gone.
    Reaped(Unreaped),
    /// A teardown is over.
    TornDown(Dying),
}

/// Checks the tables.
pub struct Sweeper {
    dying: BpfHashMap<MapData, u32, DyingEntry>,
    zombie_suspects: Suspects,
    /// Separate, because an init is in both tables and is reported from each.
    dying_suspects: Suspects,
    /// The key at which the next sweep continues.
    next: ProcessKey,
    /// Whether this process is in the initial PID namespace. In another, the kernel's PIDs mean other processes.
    possible: bool,
}

/// Entries that one sweep found to be over. Their hook may still report them.
///
/// If it does, the entry disappears from the tables and is never checked again. So a suspect is forgotten after as many
/// sweeps as check all entries.
#[derive(Debug, Default)]
struct Suspects {
    /// Each suspect, with the number of the sweep that found it.
    found: HashMap<ProcessKey, u64>,
    pass: u64,
}

impl Suspects {
    /// Whether an earlier sweep also found it to be over. If so, it stops being a suspect.
    fn found_again(&mut self, key: ProcessKey) -> bool {
        match self.found.insert(key, self.pass) {
            Some(_) => self.found.remove(&key).is_some(),
            None => false,
        }
    }

    fn end_of_sweep(&mut self) {
        let pass = self.pass;
        self.found.retain(|_, found| pass - *found < ROUND);
        self.pass += 1;
    }
}

impl Sweeper {
    pub(super) fn new(dying: Map) -> Result<Self, MapError> {
        Ok(Self {
            dying: dying.try_into()?,
            zombie_suspects: Suspects::default(),
            dying_suspects: Suspects::default(),
            next: ProcessKey::new(0, 0),
            possible: namespace::is_initial() == Some(true),
        })
    }

    /// Whether it can see which processes exist.
    pub(super) fn is_possible(&self) -> bool {
        self.possible
    }

    /// Returns the entries that two sweeps found to be over. With `last`, when no hook can report any more, one sweep
    /// is enough. Between two sweeps, the caller must follow everything that the hooks reported. Also returns its time.
    pub fn sweep(&mut self, zombies: &mut Zombies, last: bool) -> (BootNs, Vec<Swept>) {
        let now = boottime_ns();
        let mut swept = Vec::new();
        if !self.possible {
            return (now, swept);
        }
        let old = |since: u64| last || now.saturating_since(BootNs(since)) > PATIENCE_NS;

        let keys: BTreeSet<ProcessKey> = zombies.keys().collect();
        let turn = keys.range(self.next..).chain(keys.range(..self.next));
        for (number, key) in turn.enumerate() {
            if number >= BUDGET && !last {
                self.next = *key;
                break;
            }
            if zombies.get(key).is_some_and(|zombie| old(zombie.exit_boot_ns))
                && !is_there(key)
                && (last || self.zombie_suspects.found_again(*key))
                && let Some(zombie) = zombies.remove(key)
            {
                swept.push(Swept::Reaped(zombie));
            }
        }

        let inits: BTreeSet<u32> = self.dying.keys().filter_map(Result::ok).collect();
        for pid in inits {
            let Ok(DyingEntry(dying)) = self.dying.get(&pid, 0) else { continue };
            let key = ProcessKey::new(pid, dying.init_start_boot_ns);
            if old(dying.began_boot_ns)
                && !is_there(&key)
                && (last || self.dying_suspects.found_again(key))
                && self.dying.remove(&pid).is_ok()
            {
                swept.push(Swept::TornDown(dying));
            }
        }
        self.zombie_suspects.end_of_sweep();
        self.dying_suspects.end_of_sweep();
        (now, swept)
    }
}

/// Whether this process still exists, also as a zombie. A later process with the same PID does not count.
fn is_there(key: &ProcessKey) -> bool {
    let ProcessKey { pid, start_boot_ns, reserved: _ } = *key;
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    if test_kill_process(number) == Err(Errno::SRCH) {
        return false;
    }
    // If its start cannot be read, assume the same process: a late report is better than a wrong one.
    Procfs::default().start_ticks(HostPid(pid)).is_none_or(|ticks| ticks == BootNs(start_boot_ns).ticks())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::identity::TICK_NS;

    #[test]
    fn a_suspect_that_the_hook_reports_later_is_forgotten() {
        let key = |pid| ProcessKey::new(pid, 1);
        let mut suspects = Suspects::default();
        assert!(!suspects.found_again(key(1)), "by one sweep alone");
        suspects.end_of_sweep();
        assert!(suspects.found_again(key(1)));
        assert!(suspects.found.is_empty(), "reported");
        for pass in 0..10 * ROUND {
            assert!(!suspects.found_again(key(pass as u32 + 10)), "and the hook comes before the next sweep");
            suspects.end_of_sweep();
        }
        assert!(suspects.found.len() <= ROUND as usize, "{}", suspects.found.len());
    }

    #[test]
    fn a_process_is_distinguished_from_an_earlier_one_with_the_same_pid() {
        let own = std::process::id();
        let start = Procfs::default().start_ticks(HostPid(own)).unwrap() * TICK_NS;
        assert!(is_there(&ProcessKey::new(own, start)));
        assert!(!is_there(&ProcessKey::new(own, start + TICK_NS)), "another start");
        assert!(!is_there(&ProcessKey::new(u32::MAX, start)), "no such number");
    }
}
