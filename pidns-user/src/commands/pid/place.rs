//! The namespace that a TARGET names. The kernel reuses inode numbers at once, so in a recording several namespaces can
//! have had the same number.

use crate::{
    event::identity::{BootNs, NamespaceKey, NsInum, TICK_NS},
    event::snapshot::{SnapshotNamespace, SnapshotProcess},
    model::World,
};

/// One namespace, or all that had an inode number (`life` is `None`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PidNamespaceRef {
    pub(super) inum: NsInum,
    life: Option<NumberPeriod>,
}

/// The time during which a namespace had its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NumberPeriod {
    level: u32,
    from: BootNs,
    to: BootNs,
}

impl PidNamespaceRef {
    /// Every namespace that has or had this number.
    pub(super) fn of_number(inum: NsInum) -> Self {
        Self { inum, life: None }
    }

    /// The namespace with this number that exists in `world`.
    pub(super) fn of_living(inum: NsInum, world: &World) -> Self {
        Self::one(inum, world, |_, is_gone| !is_gone)
    }

    /// The namespace with this identity, even if it is gone.
    pub(super) fn of_key(key: NamespaceKey, world: &World) -> Self {
        Self::one(key.inum, world, |namespace, _| namespace.key() == key)
    }

    fn one(inum: NsInum, world: &World, is_it: impl Fn(&SnapshotNamespace, bool) -> bool) -> Self {
        let gone = world.history().namespaces().map(|gone| (&gone.state.namespace, true, gone.gone_boot_ns));
        let living = world.namespace(inum).map(|entry| (&entry.namespace, false, None));
        // All namespaces with this number, the latest first.
        let all: Vec<_> = living.into_iter().chain(gone).filter(|(ns, ..)| ns.inum == inum).collect();
        let Some(at) = all.iter().position(|&(ns, is_gone, _)| is_it(ns, is_gone)) else {
            return Self::of_number(inum);
        };
        let (namespace, _, gone) = all[at];
        let later = at.checked_sub(1).and_then(|later| all[later].0.born_boot_ns);
        let earlier = all.get(at + 1).and_then(|(.., gone)| *gone);
        // The init may have started before this birth: with clone, the birth is the time of the fork event, and /proc
        // rounds starts down.
        let born = namespace.born_boot_ns.map(|born| born.saturating_sub(TICK_NS));
        let life = NumberPeriod {
            level: namespace.level,
            from: born.max(earlier).unwrap_or_default(),
            to: gone.or(later).unwrap_or(BootNs(u64::MAX)),
        };
        Self { inum, life: Some(life) }
    }

    /// The level at which the process is in this namespace; `None` if it is neither in it nor in a nested one. `levels`
    /// are the process's namespaces as the model knows them.
    pub(super) fn level_of(&self, process: &SnapshotProcess, levels: &[Option<NsInum>]) -> Option<usize> {
        let at = levels.iter().position(|ns| *ns == Some(self.inum))?;
        let was_there = self.life.is_none_or(|life| {
            life.level as usize == at
                && process.start_boot_ns.is_none_or(|start| (life.from..=life.to).contains(&start))
        });
        was_there.then_some(at)
    }
}
