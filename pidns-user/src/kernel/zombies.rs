//! Zombies that the kernel side does not know: all where it keeps none, and those that were there before it.

use std::collections::HashMap;

use pidns_ebpf::abi::{COMM_LEN, Header, Process, ProcessKey, ProcessPart, ReapRecord, Record, Zombie};

use crate::event::{self, identity::BootNs};

/// Most zombies that are remembered, as many as the kernel side would: 13 MB of them.
const MOST: usize = 65_536;

/// A process that has exited and was not reaped yet, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreaped {
    /// The process.
    pub process: ProcessPart,
    /// When it exited: CLOCK_BOOTTIME, nanoseconds; 0 where that was not seen.
    pub exit_boot_ns: u64,
    /// Its PID at each level, from 0 to the innermost.
    pub pids: Box<[u32]>,
}

impl From<Zombie> for Unreaped {
    fn from(Zombie { record, pids }: Zombie) -> Self {
        let ReapRecord { header, process, exit_boot_ns } = record;
        let count = usize::from(header.pids).min(pids.len());
        Self { process, exit_boot_ns, pids: pids[..count].into() }
    }
}

/// Zombies whose exit was seen, or that a snapshot has found.
#[derive(Debug)]
pub struct Zombies {
    kept: HashMap<ProcessKey, Unreaped>,
    refused: u64,
    /// Whether the kernel side keeps none of its own.
    all: bool,
}

impl Zombies {
    /// None yet. Whether the kernel side keeps none: then each exiting process is remembered.
    pub fn new(all: bool) -> Self {
        Self { kept: HashMap::new(), refused: 0, all }
    }

    /// A snapshot has found this zombie, which may have been one before the kernel side was there.
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

    /// Remembers each exiting process, where that is wanted; adds what it remembers to each reaped one.
    pub fn follow<'a>(&mut self, header: Header, record: Record<'a>) -> Record<'a> {
        match record {
            Record::ProcessExit { process, .. } => {
                if self.all {
                    let kept = Unreaped {
                        process: process.part,
                        exit_boot_ns: header.boot_ns,
                        pids: process.pids().collect(),
                    };
                    self.keep(key(&process), kept);
                }
                record
            }
            Record::ProcessReap { mut process, exit_boot_ns: 0 } => match self.take(&process) {
                Some(Unreaped { process: part, exit_boot_ns, pids: _ }) => {
                    process.part = part;
                    Record::ProcessReap { process, exit_boot_ns }
                }
                None => record,
            },
            Record::ProcessReap { process, .. } => {
                self.take(&process);
                record
            }
            record => record,
        }
    }

    /// What is kept of this process, which a snapshot may have found with a start that /proc has rounded.
    fn take(&mut self, process: &Process<'_>) -> Option<Unreaped> {
        let ProcessPart { pid, start_boot_ns, .. } = process.part;
        let rounded = ProcessKey::new(pid, BootNs(start_boot_ns).rounded_to_tick().0);
        self.kept.remove(&key(process)).or_else(|| self.kept.remove(&rounded))
    }

    fn keep(&mut self, key: ProcessKey, kept: Unreaped) {
        if self.kept.len() < MOST {
            self.kept.insert(key, kept);
        } else {
            self.refused += 1;
        }
    }

    /// Who they are.
    pub fn keys(&self) -> impl Iterator<Item = ProcessKey> {
        self.kept.keys().copied()
    }

    /// One of them.
    pub fn get(&self, key: &ProcessKey) -> Option<&Unreaped> {
        self.kept.get(key)
    }

    /// Zombies not tracked because the table was full: the start of their wait is unknown.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Forgets one; returns whether it was there.
    pub fn remove(&mut self, key: &ProcessKey) -> bool {
        self.kept.remove(key).is_some()
    }
}

fn key(process: &Process<'_>) -> ProcessKey {
    ProcessKey::new(process.part.pid, process.part.start_boot_ns)
}

#[cfg(test)]
mod tests {
    use crate::event::identity::{HostPid, NsInum};
    use pidns_ebpf::abi::{Kind, PIDS_ROOM, decode};

    use super::*;

    fn zombie_of(pid: u32, uid: u32, exit_boot_ns: u64) -> Zombie {
        let mut pids = [0; PIDS_ROOM];
        pids[..2].copy_from_slice(&[pid, 7]);
        let header = Header {
            boot_ns: 9_000,
            size: size_of::<ReapRecord>() as u32 + 8,
            kind: Kind::ProcessReap as u8,
            flags: 0,
            pids: 2,
            other_pids: 0,
        };
        let process =
            ProcessPart { start_boot_ns: 50, pid, parent_pid: 1, uid, ns_inum: 9, comm: [b'x'; COMM_LEN] };
        Zombie { record: ReapRecord { header, process, exit_boot_ns }, pids }
    }

    fn bytes(zombie: &Zombie) -> &[u8] {
        let size = zombie.record.header.size as usize;
        // SAFETY: `size` bytes of a structure that is all integers, without padding.
        unsafe { std::slice::from_raw_parts((&raw const *zombie).cast::<u8>(), size) }
    }

    fn exit<'a>(process: Process<'a>) -> Record<'a> {
        Record::ProcessExit {
            process,
            parent_start_boot_ns: 0,
            wait_status: 0,
            peak_threads: 1,
            cascade_inum: 0,
            oom: 0,
        }
    }

    #[test]
    fn a_reap_gets_the_fields_of_its_exit() {
        let (at_exit, at_reaping) = (zombie_of(40, 1000, 0), zombie_of(40, 0, 0));
        let (header, Record::ProcessReap { process, .. }) = decode(bytes(&at_exit)).unwrap() else {
            panic!()
        };
        let mut zombies = Zombies::new(true);
        zombies.follow(Header { boot_ns: 5_000, ..header }, exit(process));
        assert_eq!(zombies.keys().collect::<Vec<_>>(), [ProcessKey::new(40, 50)]);
        let expected = Unreaped::from(zombie_of(40, 1000, 5_000));
        assert_eq!(zombies.get(&ProcessKey::new(40, 50)), Some(&expected));

        let (header, reap) = decode(bytes(&at_reaping)).unwrap();
        let Record::ProcessReap { process, exit_boot_ns } = zombies.follow(header, reap) else { panic!() };
        assert_eq!((process.part.uid, exit_boot_ns), (1000, 5_000));
        assert_eq!(process.pids().collect::<Vec<_>>(), [40, 7]);
        assert_eq!(zombies.keys().count(), 0);
    }

    #[test]
    fn a_reaping_without_an_exit_is_left_as_it_is() {
        let unseen = zombie_of(40, 0, 0);
        let (header, reap) = decode(bytes(&unseen)).unwrap();
        assert_eq!(Zombies::new(true).follow(header, reap), reap);
    }

    #[test]
    fn a_zombie_of_a_snapshot_is_checked_until_its_reap_is_reported() {
        let process_found = event::Process {
            pid: HostPid(40),
            pids: vec![40, 7],
            comm: "xxxxxxxxxxxxxxxx".into(),
            start_boot_ns: BootNs(50),
            ppid: Some(HostPid(1)),
            uid: 1000,
            ns: NsInum(9),
            container: None,
        };
        let mut zombies = Zombies::new(false);
        zombies.found(&process_found);
        let expected = Unreaped::from(zombie_of(40, 1000, 0));
        assert_eq!(zombies.get(&ProcessKey::new(40, 50)), Some(&expected));
        let report = zombie_of(40, 1000, 5_000);
        let (header, reap) = decode(bytes(&report)).unwrap();
        assert_eq!(zombies.follow(header, reap), reap);
        assert_eq!(zombies.keys().count(), 0);
        let (header, Record::ProcessReap { process, .. }) = decode(bytes(&report)).unwrap() else { panic!() };
        zombies.follow(header, exit(process));
        assert_eq!(zombies.keys().count(), 0, "the kernel side keeps those that exit");

        // From /proc its start is rounded down.
        zombies.found(&event::Process { start_boot_ns: BootNs(0), ..process_found });
        let (header, reap) = decode(bytes(&report)).unwrap();
        zombies.follow(header, reap);
        assert_eq!(zombies.keys().count(), 0);
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let mut zombies = Zombies::new(true);
        for pid in 1..MOST as u32 + 10 {
            let one = zombie_of(pid, 0, 0);
            let (header, Record::ProcessReap { process, .. }) = decode(bytes(&one)).unwrap() else {
                panic!()
            };
            zombies.follow(header, exit(process));
        }
        assert_eq!((zombies.keys().count(), zombies.refused()), (MOST, 9));
    }
}
