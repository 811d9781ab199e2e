//! Processes that may run in another container than the PID 1 of their namespace.
//!
//! Containers can share a PID namespace: `--pid container:X`, `--pid host`, shareProcessNamespace, `kubectl debug --target`. The
//! first process of such a one enters the namespace from outside (setns, or as a process of the host), and those that it forks
//! are in its cgroup. So those that enter are read, when they run a program, as the runtime has put them in their cgroup
//! by then; the others are where their parent is.

use std::{sync::Arc, time::Instant};

use super::{ContainerCache, cache::AGAIN_AFTER, ring::Ring};
use crate::event::{container::Container, identity::ProcessKey};

/// When a process was first read, and how often since.
#[derive(Clone, Copy, Debug)]
struct Reads {
    first: Instant,
    count: usize,
}

/// The processes: of more than 50,000 the longest known are forgotten.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Those that came in from outside.
    entered: Ring<ProcessKey, Reads>,
    /// Those that one of these has forked, or one of those.
    forked: Ring<ProcessKey, ProcessKey>,
}

impl Members {
    /// This one has come in from outside. Its container may be known when it runs a program.
    pub(super) fn enters(&mut self, process: ProcessKey) {
        self.entered.insert(process, Reads { first: Instant::now(), count: 0 });
    }

    /// This one is there, and is to be asked after.
    pub(super) fn has_read(&mut self, process: ProcessKey) {
        self.entered.insert(process, Reads { first: Instant::now(), count: 1 });
    }

    /// It is where its parent is.
    pub(super) fn is_forked(&mut self, process: ProcessKey, parent: ProcessKey) {
        if let Some(entered) = self.root_of(parent) {
            self.forked.insert(process, entered);
        }
    }

    /// Whether this one came in from outside.
    pub(super) fn has_entered(&self, process: ProcessKey) -> bool {
        self.entered.get(&process).is_some()
    }

    /// The one that came in from outside, and that this one is or stems from.
    fn root_of(&self, process: ProcessKey) -> Option<ProcessKey> {
        if self.has_entered(process) { Some(process) } else { self.forked.get(&process).copied() }
    }

    /// What it runs in, as far as it is known by now, and the process that is known by: `None` where no process is tracked. While that is young it is read
    /// again 0.1, 1 and 10 s after it ran its program, as the runtime writes its files only then.
    pub(super) fn container(
        &mut self,
        process: ProcessKey,
        names: &mut ContainerCache,
    ) -> Option<(ProcessKey, Arc<Container>)> {
        let root = self.root_of(process)?;
        let reads = self.entered.get_mut(&root)?;
        if let Some(wait) = reads.count.checked_sub(1).and_then(|reads| AGAIN_AFTER.get(reads))
            && reads.first.elapsed() >= *wait
        {
            reads.count += 1;
            return Some((root, names.find(root)?));
        }
        Some((root, names.remembered(root)?))
    }
}
