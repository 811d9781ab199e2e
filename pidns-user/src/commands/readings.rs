//! Reads from /proc for findings, in its own thread, or in the caller's if no thread can be started.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread,
};

use crate::{
    event::{
        ReachedLimit,
        identity::{BootNs, HostPid, NsInum},
        snapshot::{Holder, ProcMount, Snapshot, SnapshotNamespace},
    },
    findings::readings::{self, Holders, LimitChain, ProcShows, ReadRequest, Reader, Readings},
    kernel::clock,
    procfs::{
        Procfs,
        activity::ActivityReader,
        kernel_holders::KernelHolders,
        limits::{Limit, LimitReader},
    },
};

/// The contents of /proc/PID/cgroup by process.
pub(super) type Cgroups = HashMap<HostPid, Arc<[u8]>>;

/// Reads /proc for findings in its own thread, if one can be started.
pub(super) fn reader() -> Box<dyn Reader> {
    let (ask, requests) = mpsc::sync_channel::<ReadRequest>(1);
    let (give, taken) = mpsc::channel();
    let work = move || {
        for request in requests {
            if give.send(read(&request, &Cgroups::new())).is_err() {
                return;
            }
        }
    };
    match thread::Builder::new().name("findings".to_owned()).spawn(work) {
        Ok(_) => Box::new(ReaderThread { ask, taken }),
        Err(_) => Box::new(InTurn::default()),
    }
}

/// Reads /proc for findings in the caller's thread. These contents of /proc/PID/cgroup were already read.
pub(super) fn sequential_reader(cgroups: Cgroups) -> Box<dyn Reader> {
    Box::new(InTurn { cgroups, readings: None })
}

/// Reads in another thread, which ends when this value is dropped.
struct ReaderThread {
    ask: SyncSender<ReadRequest>,
    taken: Receiver<Readings>,
}

impl Reader for ReaderThread {
    fn ask(&mut self, request: ReadRequest) {
        match self.ask.try_send(request) {
            // If the thread is still busy, the next detection asks again.
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    fn take(&mut self) -> Option<Readings> {
        self.taken.try_recv().ok()
    }
}

/// Reads in the caller's thread.
#[derive(Default)]
struct InTurn {
    cgroups: Cgroups,
    readings: Option<Readings>,
}

impl Reader for InTurn {
    fn ask(&mut self, request: ReadRequest) {
        self.readings = Some(read(&request, &self.cgroups));
    }

    fn take(&mut self) -> Option<Readings> {
        self.readings.take()
    }
}

fn read(request: &ReadRequest, cgroups: &Cgroups) -> Readings {
    let procfs = Procfs::default();
    let ReadRequest { activity, limits, holders, still_held, empty_procs, still_mounted, proc } = request;
    let tasks = procfs.tasks().unwrap_or(0);
    let mut read = Readings { at: clock::boottime_ns(), tasks, ..Readings::default() };
    let reader = ActivityReader::new(&procfs);
    for &key in activity {
        match reader.activity(key) {
            Ok(Some(found)) => {
                for pid in found.keepers() {
                    if !read.keepers.contains_key(&pid) {
                        read.keepers.extend(procfs.described(pid).map(|keeper| (pid, keeper)));
                    }
                }
                read.activity.insert(key, Ok(found));
            }
            Err(why) => drop(read.activity.insert(key, Err(why))),
            Ok(None) => drop(read.gone.insert(key)),
        }
    }
    if !limits.is_empty() {
        read.limits = read_limits(&procfs, limits, cgroups, (read.at, tasks));
    }
    if (!holders.is_empty() || *empty_procs)
        && let Ok(mut snapshot) = procfs.snapshot(read.at, &mut || {})
    {
        let before = clock::thread_cpu_time();
        procfs.add_holders(&mut snapshot, KernelHolders::default(), &mut || {});
        let at = read.at;
        let found = holders.values().map(|ns| (ns.inum, (ns.clone(), holders_of(ns, at, &snapshot))));
        read.holders = found.collect();
        read.empty_procs = Some(readings::empty_procs(&snapshot));
        read.holders_took = clock::thread_cpu_time().saturating_sub(before);
    }
    let is_mounted =
        |mount: &&ProcMount| procfs.still_holds(&Holder::ProcMount((*mount).clone()), NsInum::default());
    read.unmounted = still_mounted.iter().filter(|mount| !is_mounted(mount)).cloned().collect();
    for (&inum, holders) in still_held {
        if !holders.iter().any(|holder| procfs.still_holds(holder, inum)) {
            read.let_go.insert(inum);
        }
    }
    for (&key, around) in proc {
        // A mismatch needs proof, so unreadable data counts as no mismatch.
        let own = procfs.device_of_proc(Some(key.pid)).ok().flatten();
        let shown = own.and_then(|own| {
            let is_shown = |pid| procfs.device_of_proc(pid).ok().flatten() == Some(own);
            around.iter().find(|(_, pid)| is_shown(*pid))
        });
        // Another process may have its PID by now.
        let shown = shown.filter(|_| procfs.exists(key));
        let shown = shown.map(|&(ns, _)| ProcShows { ns, path: "/proc".into() });
        read.proc.insert(key, shown);
    }
    read
}

fn read_limits(
    procfs: &Procfs,
    request: &BTreeMap<NsInum, HostPid>,
    cgroups: &Cgroups,
    (at, tasks): (BootNs, u64),
) -> BTreeMap<NsInum, LimitChain> {
    let Ok(mut reader) = LimitReader::new(procfs) else { return BTreeMap::new() };
    let mut found = BTreeMap::new();
    for (&inum, &init) in request {
        let before = reader.unread();
        let chain = match cgroups.get(&init) {
            Some(known) => Ok(reader.chain_in(known)),
            None => reader.chain(init),
        };
        let chain = match chain {
            Ok(limits) => LimitChain {
                init,
                at,
                tasks,
                limits: limits.into_iter().map(reached).collect(),
                unread: reader.unread() - before,
            },
            Err(_) => LimitChain { init, at, tasks, limits: Vec::new(), unread: 1 },
        };
        found.insert(inum, chain);
    }
    found
}

fn reached(Limit { kind, current, limit, cgroup }: Limit) -> ReachedLimit {
    ReachedLimit {
        kind: kind.name().into(),
        value: Some(limit),
        current: Some(current),
        cgroup,
        cgroup_id: None,
        uid: None,
        ns: None,
        user_ns: None,
    }
}

fn holders_of(ns: &SnapshotNamespace, at: BootNs, snapshot: &Snapshot) -> Holders {
    let inum = ns.inum;
    if snapshot.namespaces.get(&inum).is_some_and(|found| found.differs_from(ns)) {
        // It is gone, and another one has its number.
        return Holders { at, ..Holders::default() };
    }
    Holders {
        at,
        holders: snapshot
            .holders
            .iter()
            .filter(|(ns, _)| *ns == inum)
            .map(|(_, holder)| holder.clone())
            .collect(),
        left_out: snapshot.holders_left_out.get(&inum).copied().unwrap_or(0),
        unread: snapshot.unread.files,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        process::{self, Command},
        time::Duration,
    };

    use super::*;
    use crate::event::identity::ProcessKey;

    #[test]
    fn zombie_is_read_with_the_parent_that_keeps_it() {
        let mut child = Command::new("true").spawn().expect("start a program");
        let pid = HostPid(child.id());
        let procfs = Procfs::default();
        let start = BootNs::from_ticks(procfs.start_ticks(pid).expect("it is not reaped"));
        let (key, earlier) = (ProcessKey::new(pid, start), ProcessKey::new(pid, BootNs::from_ticks(1)));
        let request = ReadRequest { activity: [key, earlier].into(), ..ReadRequest::default() };
        let is_zombie =
            |read: &Readings| matches!(&read.activity[&key], Ok(activity) if activity.state == 'Z');
        let mut found = read(&request, &Cgroups::new());
        while !is_zombie(&found) {
            thread::sleep(Duration::from_millis(5));
            found = read(&request, &Cgroups::new());
        }
        let own = HostPid(process::id());
        assert_eq!(found.keepers[&own].start_boot_ns.ticks(), procfs.start_ticks(own).expect("own stat"));
        assert_eq!(found.gone, [earlier].into());
        child.wait().expect("it has ended");
        assert_eq!(read(&request, &Cgroups::new()).gone, [key, earlier].into());
    }
}
