//! Finds the containers of many processes of one snapshot. What they share is read once.

use std::{collections::HashMap, path::Path, sync::Arc};

use super::{
    cgroup::{self, ParsedCgroup},
    state::Parent,
};
use crate::{
    event::identity::HostPid,
    event::snapshot::SnapshotProcess,
    procfs::{CgroupTexts, Procfs},
};

/// The contents of a /proc/PID/cgroup, and the cgroup in them.
#[derive(Debug)]
struct ParsedText {
    text: Arc<[u8]>,
    parsed: Option<Arc<ParsedCgroup>>,
}

/// A pass over the processes of a snapshot.
#[derive(Debug)]
pub struct Pass<'a> {
    /// Sorted by PID.
    processes: &'a [SnapshotProcess],
    cgroups: CgroupTexts,
    /// The last parsed text of cgroups.
    last: Option<ParsedText>,
    /// The cgroups of the processes that were read.
    read: HashMap<HostPid, Arc<[u8]>>,
    /// Whether the states of the runtimes were read.
    pub(super) has_states: bool,
}

impl<'a> Pass<'a> {
    /// For the processes of a snapshot, sorted by PID.
    pub fn new(processes: &'a [SnapshotProcess], proc: &Path) -> Self {
        let cgroups = CgroupTexts::new(Procfs::at(proc));
        Self { processes, cgroups, last: None, read: HashMap::new(), has_states: false }
    }

    /// The contents of /proc/PID/cgroup for the processes whose containers were looked up.
    pub fn into_cgroups(self) -> HashMap<HostPid, Arc<[u8]>> {
        self.read
    }

    /// The parsed cgroups of a process, `None` if it is in no cgroup or its cgroups cannot be read. The outer `None`
    /// means that the process is gone.
    pub(super) fn parsed(&mut self, process: &SnapshotProcess) -> Option<Option<Arc<ParsedCgroup>>> {
        let text = self.cgroups.of(process)?;
        self.read.insert(process.pid, Arc::clone(&text));
        if let Some(last) = &self.last
            && last.text == text
        {
            return Some(last.parsed.clone());
        }
        let parsed = cgroup::parse(&text).map(Arc::new);
        self.last = Some(ParsedText { text, parsed: parsed.clone() });
        Some(parsed)
    }

    /// The parent of a process, with its name.
    pub(super) fn parent(&self, process: &SnapshotProcess) -> Parent<'a> {
        let Some(ppid) = process.ppid else { return Parent::Pid(None) };
        let parent = self.processes.binary_search_by_key(&ppid, |process| process.pid).ok();
        let comm = parent.and_then(|index| self.processes.get(index)?.comm.as_ref());
        comm.map_or(Parent::Pid(Some(ppid)), |comm| Parent::Named(ppid, comm))
    }
}
