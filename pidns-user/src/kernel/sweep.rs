//! Finds what ended without a report of any hook: zombies that are gone, teardowns that are over.
//!
//! A hook can miss an event (docs/internals/losses.md). What it would have reported stays in the kernel side's tables, and where
//! release_task reports reapings its zombies stay in ours. A sweep goes through the tables and asks whether each process is
//! still there.

use std::collections::{BTreeSet, HashMap};

use aya::{
    Pod,
    maps::{HashMap as BpfHashMap, Map, MapData, MapError},
};
use pidns_ebpf::abi::{Dying, ProcessKey, Zombie};
use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};

use super::{
    clock::boottime_ns,
    namespace,
    zombies::{Unreaped, Zombies},
};
use crate::{
    event::identity::{BootNs, HostPid},
    procfs::Procfs,
};

/// How long something has been over before a sweep reports it: the hook comes up to 40 ms late.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Most zombies that a sweep checks: real ones stay for as long as their parent likes, and each costs 10 µs.
const BUDGET: usize = 1_000;

/// Sweeps that it takes to check all zombies: as many in the kernel side's table as in ours, at most.
const ROUND: u64 = 2 * 65_536 / BUDGET as u64 + 1;

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Key(ProcessKey);

// SAFETY: repr(C), integers, 16 bytes without padding (pidns-ebpf asserts it).
unsafe impl Pod for Key {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct ZombieEntry(Zombie);

// SAFETY: repr(C), integers and byte arrays, 200 bytes without padding (pidns-ebpf asserts it).
unsafe impl Pod for ZombieEntry {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct DyingEntry(Dying);

// SAFETY: repr(C), integers, 64 bytes without padding (pidns-ebpf asserts it).
unsafe impl Pod for DyingEntry {}

/// What has ended without a report of any hook.
#[derive(Clone, Debug)]
pub enum Swept {
    /// A zombie is gone.
    Reaped(Unreaped),
    /// A teardown is over.
    TornDown(Dying),
}

/// Walks the tables.
pub struct Sweeper {
    zombies: BpfHashMap<MapData, Key, ZombieEntry>,
    dying: BpfHashMap<MapData, u32, DyingEntry>,
    zombie_suspects: Suspects,
    /// An init is in both tables, and is reported from either.
    dying_suspects: Suspects,
    /// Where the next sweep goes on.
    next: ProcessKey,
    /// In another PID namespace the kernel's numbers mean other processes, or none.
    possible: bool,
}

/// What one sweep found over: the hook may still be on its way.
///
/// An entry that the hook has reported since is gone from the tables, and is never checked again: it is forgotten after as
/// many sweeps as it takes to check all.
#[derive(Debug, Default)]
struct Suspects {
    /// With the number of the sweep that found it first.
    found: HashMap<ProcessKey, u64>,
    pass: u64,
}

impl Suspects {
    /// Whether an earlier sweep has found it over too. If so, it is no suspect any more.
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
    pub(super) fn new(zombies: Map, dying: Map) -> Result<Self, MapError> {
        Ok(Self {
            zombies: zombies.try_into()?,
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

    /// Finds what two sweeps found over; with `last`, when no hook can come any more, what this one does. Between two
    /// sweeps all that the hooks reported must have been followed. The time is that of the sweep.
    pub fn sweep(&mut self, zombies: &mut Zombies, last: bool) -> (BootNs, Vec<Swept>) {
        let now = boottime_ns();
        let mut swept = Vec::new();
        if !self.possible {
            return (now, swept);
        }
        let old = |since: u64| last || now.saturating_since(BootNs(since)) > PATIENCE_NS;

        // An entry can vanish during the walk, and the walk then begins anew: each key once is enough.
        let keys: BTreeSet<ProcessKey> =
            self.zombies.keys().filter_map(Result::ok).map(|Key(key)| key).chain(zombies.keys()).collect();
        let turn = keys.range(self.next..).chain(keys.range(..self.next));
        for (number, key) in turn.enumerate() {
            if number >= BUDGET && !last {
                self.next = *key;
                break;
            }
            // The kernel side knows since when.
            let in_kernel =
                self.zombies.get(&Key(*key), 0).ok().map(|ZombieEntry(zombie)| Unreaped::from(zombie));
            let Some(zombie) = in_kernel.or_else(|| zombies.get(key).cloned()) else { continue };
            if old(zombie.exit_boot_ns)
                && !is_there(key)
                && (last || self.zombie_suspects.found_again(*key))
                && (zombies.remove(key) | self.zombies.remove(&Key(*key)).is_ok())
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

/// Whether this very process, not a later one of its number, is still there, a zombie included.
fn is_there(key: &ProcessKey) -> bool {
    let ProcessKey { pid, start_boot_ns, reserved: _ } = *key;
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    if test_kill_process(number) == Err(Errno::SRCH) {
        return false;
    }
    // One that may not be read is taken to be the same: better late than wrong.
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
    fn a_process_is_distinguished_from_an_earlier_one_of_its_number() {
        let own = std::process::id();
        let start = Procfs::default().start_ticks(HostPid(own)).unwrap() * TICK_NS;
        assert!(is_there(&ProcessKey::new(own, start)));
        assert!(!is_there(&ProcessKey::new(own, start + TICK_NS)), "another start");
        assert!(!is_there(&ProcessKey::new(u32::MAX, start)), "no such number");
    }
}
