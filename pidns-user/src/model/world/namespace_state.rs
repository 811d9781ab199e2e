//! A namespace in the model: its attributes, its identity, and its stage.

use std::cmp::Ordering;

use crate::{
    event::identity::{BootNs, HostPid},
    event::snapshot::{Holder, SnapshotNamespace},
    event::{Cause, Process},
};

/// Stage of a namespace's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has had no process yet.
    Empty,
    /// Its PID 1 is alive, as far as we know.
    Alive,
    /// Its PID 1 has exited: no process can fork there any more.
    Dying {
        /// When PID 1 exited; `None` if no event reported it.
        since: Option<BootNs>,
        /// Why PID 1 exited; `None` if unknown.
        cause: Option<Cause>,
        /// Whether all other processes have been killed and reaped, so that only PID 1 waits to be reaped.
        torn_down: bool,
    },
    /// All its processes are gone, and something still holds it.
    Held {
        /// Since when it has no processes.
        since: BootNs,
    },
}

/// A namespace that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceState {
    /// Its attributes.
    pub namespace: SnapshotNamespace,
    /// Its stage.
    pub stage: Stage,
    /// PID 1, by its PID at level 0.
    pub init: Option<HostPid>,
    /// Start of PID 1, kept after it has exited.
    pub(super) init_start: Option<BootNs>,
    /// The record that it is known from.
    pub(super) source: KnownFrom,
    /// Number of its processes: with zombies, without those of nested namespaces.
    pub members: u32,
    /// Its holders at the last snapshot.
    pub holders: Vec<Holder>,
    /// Number of holders that are not in `holders`.
    pub holders_left_out: u64,
}

/// The record that a namespace is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KnownFrom {
    /// An event reported its creation, which is its birth.
    Creation,
    /// A snapshot listed it: its birth is its PID 1's start.
    Snapshot,
    /// Only events about it or its members, or a late PID 1.
    Mention,
}

/// The namespace that a record means, compared with the one in the model that has the same inode number. The kernel
/// reuses inode numbers at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// An earlier one.
    Earlier,
    /// The one in the model.
    This,
    /// A later one.
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

/// Orders two namespaces with the same inode number by birth. Kernel ids cannot: each CPU allocates them from its own
/// range (gen_cookie_next(), include/linux/cookie.h).
fn earlier_or_later(known: Option<BootNs>, born_boot_ns: Option<BootNs>) -> Which {
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

    /// Start of PID 1, kept after it has exited; `None` if it has had none.
    pub fn init_start(&self) -> Option<BootNs> {
        self.init_start
    }

    /// Whether `ns` is this namespace and not another with the same inode number, as far as we know.
    pub fn is(&self, ns: &SnapshotNamespace) -> bool {
        self.which(ns.kernel_id, ns.born_boot_ns) == Which::This
    }

    /// Compares id and birth with ours. The birth is the namespace's creation or, if nothing saw that, the start of its
    /// PID 1.
    pub(super) fn which(&self, kernel_id: Option<u64>, born_boot_ns: Option<BootNs>) -> Which {
        let births = || [self.namespace.born_boot_ns, self.init_start].into_iter().flatten();
        if let (Some(known), Some(given)) = (self.namespace.kernel_id, kernel_id) {
            return if known == given { Which::This } else { earlier_or_later(births().max(), born_boot_ns) };
        }
        let Some(given) = born_boot_ns else { return Which::This };
        if births().any(|known| known.is_same(given)) {
            return Which::This;
        }
        match (births().min(), births().max()) {
            (Some(first), _) if given < first => Which::Earlier,
            // Not for an empty namespace: this is the start of its first PID 1.
            (_, Some(last)) if given > last && self.stage != Stage::Empty => Which::Later,
            _ => Which::This,
        }
    }

    /// Compares with a creation event.
    pub(super) fn compare_created(&self, kernel_id: Option<u64>, born_boot_ns: Option<BootNs>) -> Which {
        if let (Some(known), Some(given)) = (self.namespace.kernel_id, kernel_id) {
            let birth = self.namespace.born_boot_ns;
            return if known == given { Which::This } else { earlier_or_later(birth, born_boot_ns) };
        }
        match self.source {
            _ if born_boot_ns == self.namespace.born_boot_ns => Which::This,
            KnownFrom::Creation => born_boot_ns.cmp(&self.namespace.born_boot_ns).into(),
            KnownFrom::Mention => Which::Later,
            // The snapshot came before the creation event. It has PID 1's start: slightly before the creation is
            // reported for clone, any time after it for unshare. PID 1 will decide.
            KnownFrom::Snapshot => match self.init_start {
                Some(start) if self.init.is_none() && born_boot_ns.is_some_and(|born| born > start) => {
                    Which::Later
                }
                _ => Which::This,
            },
        }
    }

    /// Whether `process` must belong to a later namespace with this number: it is a second PID 1, or it started after
    /// the last member was gone.
    pub(super) fn excludes(&self, process: &Process) -> bool {
        let start = process.start_boot_ns;
        let is_later = |than: BootNs| start > than && !than.is_same(start);
        let is_another_init = process.is_init() && self.init_start.is_some_and(is_later);
        is_another_init || matches!(self.stage, Stage::Held { since } if is_later(since))
    }

    /// Whether the snapshot shows another PID 1 than we know. If so, the event that named ours was about another
    /// namespace with the same inode number.
    pub(super) fn had_another_init(&self, ns: &SnapshotNamespace) -> bool {
        self.init_start.zip(ns.born_boot_ns).is_some_and(|(known, seen)| !known.is_same(seen))
    }

    /// Records `init` as PID 1.
    pub(super) fn set_init(&mut self, init: &Process) {
        let start = init.start_boot_ns;
        // /proc rounds starts down, so the later one is exact.
        let exact =
            self.init_start.filter(|&known| known.is_same(start)).map_or(start, |known| known.max(start));
        (self.init, self.init_start) = (Some(init.pid), Some(exact));
        if self.stage == Stage::Empty {
            self.stage = Stage::Alive;
        }
    }

    /// Records that PID 1 is exiting or has ended; `torn_down`: all other processes are gone. Returns whether this
    /// was not known before.
    pub(super) fn mark_dying(&mut self, torn_down: bool) -> bool {
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
