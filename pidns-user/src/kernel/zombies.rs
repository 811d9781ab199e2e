//! Processes between their exit and their reaping: those whose exit was reported, and those that a snapshot has found.

use std::collections::HashMap;

use pidns_ebpf::abi::{
    COMM_LEN, Header, Process, ProcessKey, ProcessPart, ReapRecord, Record, Zombie, pending::SLOTS,
};

use crate::event::{
    self,
    identity::{BootNs, TICK_NS},
};

/// Most zombies that are remembered. The kernel side has a slot for [`SLOTS`] of those that exit, and room for as many that find
/// none: 150 bytes for each of them here.
const MOST: usize = 2 * SLOTS as usize;

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

/// What a record of a reaping leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Followed<'a> {
    /// This record tells it, or is about something else.
    Record(Record<'a>),
    /// The process that was reaped, as it was at its exit.
    Reaped(Unreaped),
    /// A sweep has told it before, or there was no room to remember the exit.
    Nothing,
}

/// Zombies whose exit was seen, or that a snapshot has found.
#[derive(Debug)]
pub struct Zombies {
    kept: HashMap<ProcessKey, Unreaped>,
    /// How many starts are rounded, as /proc has them.
    rounded: usize,
    refused: u64,
    /// Whether reapings are reported: then whoever exits is remembered.
    follows_exits: bool,
}

impl Zombies {
    /// None yet. Whether reapings are among what the kernel side reports.
    pub fn new(follows_exits: bool) -> Self {
        Self { kept: HashMap::new(), rounded: 0, refused: 0, follows_exits }
    }

    /// A snapshot has found this zombie, which may have been one before the kernel side was there.
    pub fn found(&mut self, process: &event::Process) {
        let event::Process { pid, ref pids, ref comm, start_boot_ns, ppid, uid, ns, container: _ } = *process;
        let (pid, start_boot_ns) = (pid.0, start_boot_ns.0);
        let key = ProcessKey::new(pid, start_boot_ns);
        // From /proc, where the iterator is refused or has left a process out, its start is rounded: none is kept twice.
        let is_kept =
            |kept: &ProcessKey| kept.pid == pid && BootNs(kept.start_boot_ns).is_same(BootNs(start_boot_ns));
        if self.kept.contains_key(&key) || (is_rounded(&key) && self.kept.keys().any(is_kept)) {
            return;
        }
        let mut name = [0; COMM_LEN];
        name.iter_mut().zip(comm.as_bytes()).for_each(|(room, byte)| *room = *byte);
        let parent_pid = ppid.unwrap_or_default().0;
        let process = ProcessPart { start_boot_ns, pid, parent_pid, uid, ns_inum: ns.0, comm: name };
        self.keep(key, Unreaped { process, exit_boot_ns: 0, pids: pids.as_slice().into() });
    }

    /// Remembers whoever exits, where that is wanted; of whoever is reaped, adds what is remembered.
    pub fn follow<'a>(&mut self, header: Header, record: Record<'a>) -> Followed<'a> {
        match record {
            Record::ProcessExit { process, .. } if self.follows_exits => {
                let kept = Unreaped {
                    process: process.part,
                    exit_boot_ns: header.boot_ns,
                    pids: process.pids().collect(),
                };
                let key = key(&process);
                // One that a snapshot has found already may be there with a rounded start.
                if self.rounded > 0 {
                    self.take(key);
                }
                self.keep(key, kept);
            }
            Record::BriefReap { key } => {
                return self.take(key).map_or(Followed::Nothing, Followed::Reaped);
            }
            Record::ProcessReap { mut process, exit_boot_ns } => {
                let taken = self.take(key(&process));
                if exit_boot_ns == 0
                    && let Some(Unreaped { process: part, exit_boot_ns, pids: _ }) = taken
                {
                    process.part = part;
                    return Followed::Record(Record::ProcessReap { process, exit_boot_ns });
                }
            }
            _ => {}
        }
        Followed::Record(record)
    }

    /// What is kept of this process. A snapshot may have found it too, with a start that /proc has rounded.
    fn take(&mut self, key: ProcessKey) -> Option<Unreaped> {
        let exact = self.remove_one(&key);
        let found = if self.rounded > 0 {
            let start = BootNs(key.start_boot_ns).rounded_to_tick().0;
            self.remove_one(&ProcessKey::new(key.pid, start))
        } else {
            None
        };
        exact.or(found)
    }

    fn keep(&mut self, key: ProcessKey, kept: Unreaped) {
        if self.kept.len() >= MOST {
            self.refused += 1;
        } else if self.kept.insert(key, kept).is_none() {
            self.rounded += usize::from(is_rounded(&key));
        }
    }

    fn remove_one(&mut self, key: &ProcessKey) -> Option<Unreaped> {
        let kept = self.kept.remove(key)?;
        self.rounded -= usize::from(is_rounded(key));
        Some(kept)
    }

    /// Who they are.
    pub fn keys(&self) -> impl Iterator<Item = ProcessKey> {
        self.kept.keys().copied()
    }

    /// One of them.
    pub fn get(&self, key: &ProcessKey) -> Option<&Unreaped> {
        self.kept.get(key)
    }

    /// How many found no room: their reaping is not told.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Forgets one; says whether it was there.
    pub fn remove(&mut self, key: &ProcessKey) -> bool {
        self.remove_one(key).is_some()
    }
}

fn key(process: &Process<'_>) -> ProcessKey {
    ProcessKey::new(process.part.pid, process.part.start_boot_ns)
}

fn is_rounded(key: &ProcessKey) -> bool {
    key.start_boot_ns.is_multiple_of(TICK_NS)
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

    fn brief(key: ProcessKey) -> Record<'static> {
        Record::BriefReap { key }
    }

    /// What the exit of this zombie at this time leaves behind.
    fn exited(zombies: &mut Zombies, zombie: &Zombie, boot_ns: u64) {
        let (header, Record::ProcessReap { process, .. }) = decode(bytes(zombie)).unwrap() else { panic!() };
        let record = exit(process);
        assert_eq!(zombies.follow(Header { boot_ns, ..header }, record), Followed::Record(record));
    }

    fn header(zombie: &Zombie) -> Header {
        zombie.record.header
    }

    #[test]
    fn a_reaping_gets_what_its_exit_told() {
        let (at_exit, at_reaping) = (zombie_of(40, 1000, 0), zombie_of(40, 0, 0));
        let mut zombies = Zombies::new(true);
        exited(&mut zombies, &at_exit, 5_000);
        assert_eq!(zombies.keys().collect::<Vec<_>>(), [ProcessKey::new(40, 50)]);
        let expected = Unreaped::from(zombie_of(40, 1000, 5_000));
        assert_eq!(zombies.get(&ProcessKey::new(40, 50)), Some(&expected));

        let (header, reap) = decode(bytes(&at_reaping)).unwrap();
        let Followed::Record(Record::ProcessReap { process, exit_boot_ns }) = zombies.follow(header, reap)
        else {
            panic!()
        };
        assert_eq!((process.part.uid, exit_boot_ns), (1000, 5_000));
        assert_eq!(process.pids().collect::<Vec<_>>(), [40, 7]);
        assert_eq!(zombies.keys().count(), 0);
    }

    #[test]
    fn a_brief_reaping_is_what_its_exit_told_and_is_told_once() {
        let at_exit = zombie_of(40, 1000, 0);
        let mut zombies = Zombies::new(true);
        exited(&mut zombies, &at_exit, 5_000);
        let key = ProcessKey::new(40, 50);
        let another = ProcessKey::new(40, 51);
        assert_eq!(zombies.follow(header(&at_exit), brief(another)), Followed::Nothing, "another start");
        let expected = Unreaped::from(zombie_of(40, 1000, 5_000));
        assert_eq!(zombies.follow(header(&at_exit), brief(key)), Followed::Reaped(expected));
        assert_eq!(zombies.follow(header(&at_exit), brief(key)), Followed::Nothing, "told already");
    }

    #[test]
    fn a_reaping_without_an_exit_is_left_as_it_is() {
        let unseen = zombie_of(40, 0, 0);
        let (header, reap) = decode(bytes(&unseen)).unwrap();
        assert_eq!(Zombies::new(true).follow(header, reap), Followed::Record(reap));
    }

    #[test]
    fn what_the_kernel_side_has_kept_is_told_as_that_has_it() {
        let kept = zombie_of(40, 1000, 5_000);
        let mut zombies = Zombies::new(true);
        exited(&mut zombies, &zombie_of(40, 0, 0), 4_000);
        let (header, reap) = decode(bytes(&kept)).unwrap();
        assert_eq!(zombies.follow(header, reap), Followed::Record(reap));
        assert_eq!(zombies.keys().count(), 0);
    }

    #[test]
    fn one_that_a_snapshot_has_found_is_asked_after_until_its_reaping_is_told() {
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
        let mut zombies = Zombies::new(true);
        zombies.found(&process_found);
        let expected = Unreaped::from(zombie_of(40, 1000, 0));
        assert_eq!(zombies.get(&ProcessKey::new(40, 50)), Some(&expected));
        let told = zombie_of(40, 1000, 5_000);
        let (header, reap) = decode(bytes(&told)).unwrap();
        assert_eq!(zombies.follow(header, reap), Followed::Record(reap));
        assert_eq!(zombies.keys().count(), 0);

        // From /proc its start is rounded down, and it is the same one before its exit is read and after.
        let rounded = event::Process { start_boot_ns: BootNs(0), ..process_found };
        zombies.found(&rounded);
        zombies.follow(header, reap);
        assert_eq!(zombies.keys().count(), 0);
        zombies.found(&rounded);
        exited(&mut zombies, &told, 5_000);
        assert_eq!(zombies.keys().collect::<Vec<_>>(), [ProcessKey::new(40, 50)]);
        zombies.found(&rounded);
        assert_eq!(zombies.keys().count(), 1);
        let Followed::Reaped(_) = zombies.follow(header, brief(ProcessKey::new(40, 50))) else { panic!() };
        assert_eq!((zombies.keys().count(), zombies.rounded), (0, 0));
    }

    #[test]
    fn where_reapings_are_not_wanted_no_exit_is_remembered() {
        let mut zombies = Zombies::new(false);
        exited(&mut zombies, &zombie_of(40, 0, 0), 5_000);
        assert_eq!(zombies.keys().count(), 0);
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let mut zombies = Zombies::new(true);
        for pid in 1..MOST as u32 + 10 {
            exited(&mut zombies, &zombie_of(pid, 0, 0), 5_000);
        }
        assert_eq!((zombies.keys().count(), zombies.refused()), (MOST, 9));
    }
}
