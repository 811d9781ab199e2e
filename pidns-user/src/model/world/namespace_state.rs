//! A namespace of the model: what is known of it, which one it is, and how far it has come.

use std::cmp::Ordering;

use crate::{
    event::identity::{BootNs, HostPid},
    event::snapshot::{Holder, SnapshotNamespace},
    event::{Cause, Process},
};

/// How far a namespace has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has had no process yet.
    Empty,
    /// Its PID 1 lives, or may.
    Alive,
    /// Its PID 1 has exited: no process can fork there any more.
    Dying {
        /// When; `None` where no event says that.
        since: Option<BootNs>,
        /// Why, likewise.
        cause: Option<Cause>,
        /// Whether all others have been killed and reaped: PID 1 itself waits to be reaped.
        torn_down: bool,
    },
    /// All its processes are gone, and something still holds it.
    Held {
        /// Since when.
        since: BootNs,
    },
}

/// A namespace that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceState {
    /// What is known of it.
    pub namespace: SnapshotNamespace,
    /// How far it has come.
    pub stage: Stage,
    /// PID 1, by its PID at level 0.
    pub init: Option<HostPid>,
    /// When PID 1 was started, while it is there and afterwards.
    pub(super) init_start: Option<BootNs>,
    /// What its birth is known from.
    pub(super) source: KnownFrom,
    /// Its processes, zombies included; those of the namespaces below not.
    pub members: u32,
    /// What held it at the last snapshot.
    pub holders: Vec<Holder>,
    /// How many more did.
    pub holders_left_out: u64,
}

/// How a namespace came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KnownFrom {
    /// Its creation was reported: its birth is that.
    Creation,
    /// A snapshot found it: its birth is its PID 1's start.
    Snapshot,
    /// An event was about it, or about a member.
    Mention,
}

/// Which namespace of one inode number, which the kernel gives out again at once, a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// One that had the number before.
    Earlier,
    /// The one that is known.
    This,
    /// One that has the number since.
    Later,
}

impl From<Ordering> for Which {
    fn from(order: Ordering) -> Self {
        match order {
            Ordering::Less => Self::Earlier,
            Ordering::Equal => Self::This,
            Ordering::Greater => Self::Later,
        }
    }
}

/// Which of two namespaces that have had one number the one is that was born then. The kernel's ids do not show it: each CPU hands
/// them out from a range of its own (gen_cookie_next, include/linux/cookie.h).
fn another(known: Option<BootNs>, born_boot_ns: Option<BootNs>) -> Which {
    match (known, born_boot_ns) {
        (Some(known), Some(born)) if born < known => Which::Earlier,
        _ => Which::Later,
    }
}

impl NamespaceState {
    pub(super) fn new(namespace: SnapshotNamespace, stage: Stage, source: KnownFrom) -> Self {
        Self {
            namespace,
            stage,
            init: None,
            init_start: None,
            source,
            members: 0,
            holders: Vec::new(),
            holders_left_out: 0,
        }
    }

    /// When PID 1 was started, while it is there and afterwards; `None` where it has had none.
    pub fn init_start(&self) -> Option<BootNs> {
        self.init_start
    }

    /// Whether it is this one of its number, as far as that is known.
    pub fn is(&self, ns: &SnapshotNamespace) -> bool {
        self.which(ns.kernel_id, ns.born_boot_ns) == Which::This
    }

    /// Which namespace has this id and birth, as far as that is known. A birth is that of the namespace, or where none
    /// saw that, its PID 1's start.
    pub(super) fn which(&self, kernel_id: Option<u64>, born_boot_ns: Option<BootNs>) -> Which {
        let births = || [self.namespace.born_boot_ns, self.init_start].into_iter().flatten();
        if let (Some(known), Some(given)) = (self.namespace.kernel_id, kernel_id) {
            return if known == given { Which::This } else { another(births().max(), born_boot_ns) };
        }
        let Some(given) = born_boot_ns else { return Which::This };
        if births().any(|known| known.is_same(given)) {
            return Which::This;
        }
        match (births().min(), births().max()) {
            (Some(first), _) if given < first => Which::Earlier,
            // It gets its PID 1 now.
            (_, Some(last)) if given > last && self.stage != Stage::Empty => Which::Later,
            _ => Which::This,
        }
    }

    /// Which namespace is the one that was created at this time.
    pub(super) fn which_was_created(&self, kernel_id: Option<u64>, born_boot_ns: Option<BootNs>) -> Which {
        if let (Some(known), Some(given)) = (self.namespace.kernel_id, kernel_id) {
            let birth = self.namespace.born_boot_ns;
            return if known == given { Which::This } else { another(birth, born_boot_ns) };
        }
        match self.source {
            _ if born_boot_ns == self.namespace.born_boot_ns => Which::This,
            KnownFrom::Creation => born_boot_ns.cmp(&self.namespace.born_boot_ns).into(),
            KnownFrom::Mention => Which::Later,
            // The snapshot was faster than the event. It has the start of PID 1, which is a little before the creation is reported
            // where clone made it, and any time after it where unshare did. Whether it is that one its PID 1 will show.
            KnownFrom::Snapshot => match self.init_start {
                Some(start) if self.init.is_none() && born_boot_ns.is_some_and(|born| born > start) => {
                    Which::Later
                }
                _ => Which::This,
            },
        }
    }

    /// Whether a process that has its number must be in a later namespace: a namespace has one PID 1, and no process comes when
    /// all have gone.
    pub(super) fn cannot_have(&self, process: &Process) -> bool {
        let start = process.start_boot_ns;
        let is_later = |than: BootNs| start > than && !than.is_same(start);
        let is_another_init = process.pids.last() == Some(&1) && self.init_start.is_some_and(is_later);
        is_another_init || matches!(self.stage, Stage::Held { since } if is_later(since))
    }

    /// Whether the snapshot shows another PID 1 than we know. If so, the event that named ours was about another
    /// namespace with the same inode number.
    pub(super) fn had_another_init(&self, ns: &SnapshotNamespace) -> bool {
        self.init_start.zip(ns.born_boot_ns).is_some_and(|(known, seen)| !known.is_same(seen))
    }

    /// PID 1 is this process.
    pub(super) fn has_init(&mut self, init: &Process) {
        let start = init.start_boot_ns;
        // What was rounded was rounded down.
        let exact =
            self.init_start.filter(|&known| known.is_same(start)).map_or(start, |known| known.max(start));
        (self.init, self.init_start) = (Some(init.pid), Some(exact));
        if self.stage == Stage::Empty {
            self.stage = Stage::Alive;
        }
    }
}

impl NamespaceState {
    /// Its PID 1 is exiting or has ended, as a snapshot or a teardown shows; `torn_down`: all others are gone. Returns whether
    /// that was not known.
    pub(super) fn goes_down(&mut self, torn_down: bool) -> bool {
        match &mut self.stage {
            Stage::Dying { torn_down: known, .. } => {
                let is_new = torn_down && !*known;
                *known |= torn_down;
                is_new
            }
            Stage::Empty | Stage::Alive | Stage::Held { .. } => {
                self.stage = Stage::Dying { since: None, cause: None, torn_down };
                true
            }
        }
    }
}
