//! A look for what ended although no hook said so: zombies that are gone, teardowns that are over.
//!
//! sched_process_free can go by unseen (DESIGN.md, Losses). What it would have reported stays in the kernel side's
//! tables; a look through them, and at whether the process is still there, finds it.

use std::{collections::HashSet, fs};

use aya::{
    Pod,
    maps::{HashMap, Map, MapData, MapError},
};
use pidns_ebpf::abi::{Dying, FLAG_INEXACT, Header, Kind, Namespaced, Record, TeardownBody, Zombie, decode};
use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};

use super::clock::boottime_ns;

/// How long something has been over before a look says so: the hook comes up to 40 ms late.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Nanoseconds of the unit of /proc/PID/stat's start time (`USER_HZ` is 100 everywhere).
const TICK_NS: u64 = 10_000_000;

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

/// Looks through the tables.
pub struct Sweeper {
    zombies: HashMap<MapData, u64, ZombieEntry>,
    dying: HashMap<MapData, u32, DyingEntry>,
    /// What was found over by the look before: (key, start of the process).
    suspects: HashSet<(u64, u64)>,
}

impl Sweeper {
    pub(super) fn new(zombies: Map, dying: Map) -> Result<Self, MapError> {
        Ok(Self { zombies: zombies.try_into()?, dying: dying.try_into()?, suspects: HashSet::new() })
    }

    /// Hands over what two looks in a row found over; with `last`, when no hook can come any more, what this one
    /// does.
    pub fn sweep(&mut self, last: bool, mut each: impl FnMut(Header, Record<'_>)) -> Result<(), MapError> {
        let now = boottime_ns();
        let old = |since: u64| last || now.saturating_sub(since) > PATIENCE_NS;
        let before = std::mem::take(&mut self.suspects);

        // An entry can vanish while we look, and the walk then begins anew: each key once is enough.
        let keys: HashSet<u64> = self.zombies.keys().filter_map(Result::ok).collect();
        for key in keys {
            let Ok(ZombieEntry(zombie)) = self.zombies.get(&key, 0) else { continue };
            let process = zombie.record.process;
            if !old(zombie.record.exit_boot_ns) || is_there(process.pid, process.start_boot_ns) {
                continue;
            }
            let suspect = (key, process.start_boot_ns);
            if !last && !before.contains(&suspect) {
                self.suspects.insert(suspect);
            } else if self.zombies.remove(&key).is_ok() {
                reap(zombie, now, &mut each);
            }
        }

        let keys: HashSet<u32> = self.dying.keys().filter_map(Result::ok).collect();
        for key in keys {
            let Ok(DyingEntry(dying)) = self.dying.get(&key, 0) else { continue };
            if !old(dying.began_boot_ns) || is_there(key, dying.init_start_boot_ns) {
                continue;
            }
            let suspect = (u64::from(key), dying.init_start_boot_ns);
            if !last && !before.contains(&suspect) {
                self.suspects.insert(suspect);
            } else if self.dying.remove(&key).is_ok() {
                teardown(&dying, now, &mut each);
            }
        }
        Ok(())
    }
}

fn reap(mut zombie: Zombie, now: u64, each: &mut impl FnMut(Header, Record<'_>)) {
    zombie.record.header.boot_ns = now;
    zombie.record.header.flags = FLAG_INEXACT;
    let size = (zombie.record.header.size as usize).min(size_of::<Zombie>());
    // SAFETY: `size` bytes of a structure that is all integers, without padding.
    let bytes = unsafe { std::slice::from_raw_parts((&raw const zombie).cast::<u8>(), size) };
    if let Ok((header, record)) = decode(bytes) {
        each(header, record);
    }
}

fn teardown(dying: &Dying, now: u64, each: &mut impl FnMut(Header, Record<'_>)) {
    let Dying { ns, init_start_boot_ns: _, began_boot_ns, killed, reserved } = *dying;
    let header = Header {
        boot_ns: now,
        size: 0,
        kind: Kind::NamespaceTeardown as u8,
        flags: FLAG_INEXACT,
        pids: 0,
        other_pids: 0,
    };
    let body = TeardownBody { began_boot_ns, killed, reserved };
    each(header, Record::NamespaceTeardown(Namespaced { ns: Some(ns), process: None, other: None, body }));
}

/// Whether this very process, not a later one of its number, is still there, a zombie included.
fn is_there(pid: u32, start_boot_ns: u64) -> bool {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    if test_kill_process(number) == Err(Errno::SRCH) {
        return false;
    }
    // One that may not be looked at is taken to be the same: better late than wrong.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| start_ticks(&stat))
        .is_none_or(|ticks| ticks == start_boot_ns / TICK_NS)
}

/// Field 22 of /proc/PID/stat (proc(5)): the start after boot, in ticks.
fn start_ticks(stat: &str) -> Option<u64> {
    // comm, in parentheses, may hold anything; the third field follows its last one.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_behind_any_comm() {
        let tail = (3..=30).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(start_ticks(&format!("7 (a) b) (c)) {tail}")), Some(22));
        assert_eq!(start_ticks("7 (cut"), None);
    }

    #[test]
    fn a_process_is_told_from_an_earlier_one_of_its_number() {
        let own = std::process::id();
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let start = start_ticks(&stat).unwrap() * TICK_NS;
        assert!(is_there(own, start));
        assert!(!is_there(own, start + TICK_NS), "another start");
        assert!(!is_there(u32::MAX, start), "no such number");
    }
}
