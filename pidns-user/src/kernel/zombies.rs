//! Zombies, from the records of their exits and from snapshots. The record of a reap has less about the process.

use std::collections::HashMap;

use pidns_ebpf::abi::{COMM_LEN, Header, ProcessKey, ProcessPart, Record};

use crate::event::{self, identity::BootNs};

/// Capacity: 7 MB of zombies.
pub(super) const MAX_ZOMBIES: usize = 65_536;

/// A process that has exited and, as far as we know, was not reaped yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreaped {
    /// The process.
    pub process: ProcessPart,
    /// When it exited: CLOCK_BOOTTIME, nanoseconds; 0 if unknown.
    pub exit_boot_ns: u64,
    /// Its PID at each level, from 0 to the innermost.
    pub pids: Box<[u32]>,
}

/// What a record is after the zombies were consulted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed<'a> {
    /// No record of a reap.
    Other(Record<'a>),
    /// This process was reaped.
    Reaped(Unreaped),
    /// A process was reaped about which nothing is known: a sweep has already reported it, or there was no room for it.
    Unknown,
}

/// Zombies whose exit was reported, or that a snapshot showed.
#[derive(Debug)]
pub struct Zombies {
    kept: HashMap<ProcessKey, Unreaped>,
    refused: u64,
    /// Whether the hooks report reaps.
    follows_exits: bool,
}

impl Zombies {
    /// Starts empty. With `follows_exits`, each exiting process is remembered.
    pub fn new(follows_exits: bool) -> Self {
        Self { kept: HashMap::new(), refused: 0, follows_exits }
    }

    /// Adds a zombie that a snapshot showed. It may be older than the tracer.
    pub fn found(&mut self, process: &event::Process) {
        let event::Process { pid, ref pids, ref comm, start_boot_ns, ppid, uid, ns, container: _ } = *process;
        let (pid, start_boot_ns) = (pid.0, start_boot_ns.0);
        let key = ProcessKey::new(pid, start_boot_ns);
        if self.kept.contains_key(&key) {
            return;
        }
        let mut name = [0; COMM_LEN];
        name.iter_mut().zip(comm.as_bytes()).for_each(|(room, byte)| *room = *byte);
        let parent_pid = ppid.unwrap_or_default().0;
        let process = ProcessPart { start_boot_ns, pid, parent_pid, uid, ns_inum: ns.0, comm: name };
        self.keep(key, Unreaped { process, exit_boot_ns: 0, pids: pids.as_slice().into() });
    }

    /// Remembers each exiting process, and finds out which process a record of a reap is about.
    pub fn follow<'a>(&mut self, header: Header, record: Record<'a>) -> Followed<'a> {
        match record {
            Record::ProcessExit { process, .. } => {
                if self.follows_exits {
                    let (process, pids) = (process.part, process.pids().collect());
                    let kept = Unreaped { process, exit_boot_ns: header.boot_ns, pids };
                    self.keep(key(&process), kept);
                }
                Followed::Other(record)
            }
            Record::ProcessReap { process } => {
                let at_reaping =
                    Unreaped { process: process.part, exit_boot_ns: 0, pids: process.pids().collect() };
                Followed::Reaped(self.take(key(&process.part)).unwrap_or(at_reaping))
            }
            Record::ProcessFree(key) => self.take(key).map_or(Followed::Unknown, Followed::Reaped),
            record => Followed::Other(record),
        }
    }

    /// Removes and returns the entry of this process. A snapshot from /proc may have stored it with a rounded start.
    fn take(&mut self, key: ProcessKey) -> Option<Unreaped> {
        let rounded = ProcessKey::new(key.pid, BootNs(key.start_boot_ns).rounded_to_tick().0);
        self.kept.remove(&key).or_else(|| self.kept.remove(&rounded))
    }

    fn keep(&mut self, key: ProcessKey, kept: Unreaped) {
        if self.kept.len() < MAX_ZOMBIES {
            self.kept.insert(key, kept);
        } else {
            self.refused += 1;
        }
    }

    /// The processes.
    pub fn keys(&self) -> impl Iterator<Item = ProcessKey> {
        self.kept.keys().copied()
    }

    /// The zombie, if this process is one.
    pub fn get(&self, key: &ProcessKey) -> Option<&Unreaped> {
        self.kept.get(key)
    }

    /// Zombies not tracked because the table was full. The start of their wait is unknown. If sched_process_free reports
    /// reaps, theirs are not reported.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Removes and returns an entry.
    pub fn remove(&mut self, key: &ProcessKey) -> Option<Unreaped> {
        self.kept.remove(key)
    }
}

fn key(process: &ProcessPart) -> ProcessKey {
    ProcessKey::new(process.pid, process.start_boot_ns)
}

#[cfg(test)]
mod tests {
    use crate::event::identity::{HostPid, NsInum};
    use pidns_ebpf::abi::{Kind, decode};

    use super::*;

    fn part(pid: u32, uid: u32) -> ProcessPart {
        ProcessPart { start_boot_ns: 50, pid, parent_pid: 1, uid, ns_inum: 9, comm: [b'x'; COMM_LEN] }
    }

    /// A record as the kernel side writes it, with these PIDs.
    fn record(kind: Kind, boot_ns: u64, body: &[u32], comm: &[u8], pids: &[u32]) -> Vec<u8> {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        let rest = [words(body), comm.to_vec(), words(pids)].concat();
        let size = (size_of::<Header>() + rest.len()) as u32;
        let header = [&boot_ns.to_ne_bytes()[..], &size.to_ne_bytes(), &[kind as u8, 0, pids.len() as u8, 0]];
        [header.concat(), rest].concat()
    }

    /// release_task reports process `pid`, which has PID 7 in its namespace.
    fn release(pid: u32, uid: u32) -> Vec<u8> {
        record(Kind::ProcessReap, 9_000, &[50, 0, pid, 1, uid, 9], &[b'x'; COMM_LEN], &[pid, 7])
    }

    /// sched_process_free reports it.
    fn free(pid: u32) -> Vec<u8> {
        record(Kind::ProcessReap, 9_000, &[50, 0, pid, 0], &[], &[])
    }

    /// It exits at this time.
    fn exit(zombies: &mut Zombies, pid: u32, uid: u32, boot_ns: u64) {
        let bytes = release(pid, uid);
        let (header, Record::ProcessReap { process }) = decode(&bytes).unwrap() else { panic!() };
        let exit = Record::ProcessExit {
            process,
            parent_start_boot_ns: 0,
            wait_status: 0,
            peak_threads: 1,
            cascade_inum: 0,
            oom: 0,
        };
        assert_eq!(zombies.follow(Header { boot_ns, ..header }, exit), Followed::Other(exit));
    }

    fn follow(zombies: &mut Zombies, bytes: &[u8]) -> Followed<'static> {
        let (header, record) = decode(bytes).unwrap();
        match zombies.follow(header, record) {
            Followed::Other(record) => panic!("{record:?} is a reap"),
            Followed::Reaped(process) => Followed::Reaped(process),
            Followed::Unknown => Followed::Unknown,
        }
    }

    fn unreaped(pid: u32, uid: u32, exit_boot_ns: u64) -> Unreaped {
        Unreaped { process: part(pid, uid), exit_boot_ns, pids: [pid, 7].into() }
    }

    #[test]
    fn a_reaped_process_is_described_as_it_was_at_its_exit() {
        for report in [release(40, 0), free(40)] {
            let mut zombies = Zombies::new(true);
            exit(&mut zombies, 40, 1000, 5_000);
            assert_eq!(zombies.get(&ProcessKey::new(40, 50)), Some(&unreaped(40, 1000, 5_000)));
            assert_eq!(follow(&mut zombies, &report), Followed::Reaped(unreaped(40, 1000, 5_000)));
            assert_eq!(zombies.keys().count(), 0);
        }
    }

    #[test]
    fn a_reap_without_an_exit_is_described_by_its_own_record() {
        let mut zombies = Zombies::new(true);
        assert_eq!(follow(&mut zombies, &release(40, 0)), Followed::Reaped(unreaped(40, 0, 0)));
        assert_eq!(follow(&mut zombies, &free(40)), Followed::Unknown, "its record has only the PID");
    }

    #[test]
    fn a_reap_that_a_sweep_has_reported_is_not_reported_again() {
        let mut zombies = Zombies::new(true);
        exit(&mut zombies, 40, 1000, 5_000);
        assert_eq!(zombies.remove(&ProcessKey::new(40, 50)), Some(unreaped(40, 1000, 5_000)));
        assert_eq!(follow(&mut zombies, &free(40)), Followed::Unknown);
    }

    #[test]
    fn a_zombie_of_a_snapshot_is_kept_until_its_reap_is_reported() {
        let found = event::Process {
            pid: HostPid(40),
            pids: vec![40, 7],
            comm: "xxxxxxxxxxxxxxxx".into(),
            start_boot_ns: BootNs(50),
            ppid: Some(HostPid(1)),
            uid: 1000,
            ns: NsInum(9),
            container: None,
        };
        let mut zombies = Zombies::new(true);
        zombies.found(&found);
        assert_eq!(follow(&mut zombies, &free(40)), Followed::Reaped(unreaped(40, 1000, 0)));
        assert_eq!(zombies.keys().count(), 0);

        // Its start in /proc is rounded down.
        let rounded = event::Process { start_boot_ns: BootNs(0), ..found };
        zombies.found(&rounded);
        let process = ProcessPart { start_boot_ns: 0, ..part(40, 1000) };
        let expected = Unreaped { process, exit_boot_ns: 0, pids: [40, 7].into() };
        assert_eq!(follow(&mut zombies, &free(40)), Followed::Reaped(expected));
    }

    #[test]
    fn exits_are_remembered_only_if_the_hooks_report_reaps() {
        let mut zombies = Zombies::new(false);
        exit(&mut zombies, 40, 1000, 5_000);
        assert_eq!(zombies.keys().count(), 0);
    }

    #[test]
    fn zombies_beyond_the_capacity_are_counted_as_refused() {
        let mut zombies = Zombies::new(true);
        for pid in 1..MAX_ZOMBIES as u32 + 10 {
            exit(&mut zombies, pid, 0, 5_000);
        }
        assert_eq!((zombies.keys().count(), zombies.refused()), (MAX_ZOMBIES, 9));
    }
}
