//! Usage of the limits on PIDs of a namespace.

use super::{
    DetectorInput,
    readings::{HALF, LimitChain},
};
use crate::event::{
    INITIAL_NS, ReachedLimit,
    finding::{Evidence, EvidenceSource, Fact},
    identity::{BootNs, NsInum},
    snapshot::{PidMax, SnapshotNamespace},
};

/// A limit that will be reached within this time counts as nearly reached.
const SOON_SECONDS: u64 = 600;

/// A limit with its usage.
pub(super) struct LimitUse {
    pub(super) at: BootNs,
    pub(super) limit: ReachedLimit,
    source: EvidenceSource,
    growth_per_minute: Option<u64>,
}

impl LimitUse {
    pub(super) fn percent(&self) -> u8 {
        self.limit.percent().unwrap_or(0)
    }

    fn seconds_left(&self) -> Option<u64> {
        let room = self.limit.usable()?.saturating_sub(self.limit.current?);
        Some(room.saturating_mul(60) / self.growth_per_minute.filter(|growth| *growth > 0)?)
    }

    /// Number of tasks that count against it.
    pub(super) fn used(&self) -> Option<u64> {
        self.limit.current
    }

    /// Whether at least this share is used.
    pub(super) fn is_used_by(&self, percent: u8) -> bool {
        self.percent() >= percent
    }

    /// Whether at least this share is used, or the limit will be reached soon.
    pub(super) fn is_nearly_reached(&self, from_percent: u8) -> bool {
        let soon = || self.percent() >= HALF && self.seconds_left().is_some_and(|left| left < SOON_SECONDS);
        self.percent() >= from_percent || soon()
    }

    pub(super) fn evidence(self) -> Evidence {
        let seconds_left = self.seconds_left();
        let Self { at, limit, source, growth_per_minute } = self;
        let fact = Fact::Limit { limit, growth_per_minute, seconds_left };
        Evidence { source, boot_ns: at, fact }
    }
}

/// A namespace's own `pid_max`, if it was lowered.
pub(super) fn own_pid_max(ns: &SnapshotNamespace) -> Option<ReachedLimit> {
    let PidMax { value, current } = ns.pid_max?;
    Some(ReachedLimit {
        kind: "pid_max".into(),
        value: Some(value.into()),
        current: Some(current.into()),
        ns: Some(ns.inum),
        cgroup: None,
        cgroup_id: None,
        uid: None,
        user_ns: None,
    })
}

/// Whether it is a limit of the whole host.
pub(super) fn is_of_the_machine(limit: &ReachedLimit) -> bool {
    limit.kind != "pids_cgroup" && limit.ns.is_none_or(|ns| ns == INITIAL_NS)
}

/// The limit of a namespace's PID 1 with the highest usage. The host's limits count only for the initial namespace.
pub(super) fn tightest(input: &DetectorInput<'_>, inum: NsInum) -> Option<LimitUse> {
    let ns = &input.world.namespace(inum)?.namespace;
    let chain = input.readings.limits.get(&inum);
    let read = chain.into_iter().flat_map(|LimitChain { at, limits, .. }| {
        let own = limits.iter().enumerate().filter(|(_, limit)| ns.level == 0 || !is_of_the_machine(limit));
        own.map(|(number, limit)| (*at, EvidenceSource::Proc, Some(number), limit.clone()))
    });
    let as_of = input.world.processes_as_of().unwrap_or(input.now);
    let own = own_pid_max(ns).map(|limit| (as_of, EvidenceSource::Snapshot, None, limit));
    let (at, source, number, limit) = read.chain(own).max_by_key(|(.., limit)| limit.percent())?;
    // Threads count too, and so do processes of other namespaces in the cgroup. Forks show neither.
    let measured = number.and_then(|number| input.readings.growth_per_minute(inum, number));
    let forked = || {
        let lives = input.recent.namespace(inum)?.lives.as_ref()?;
        let (births, reaps) = (lives.births.until(input.now), lives.reaps.until(input.now));
        births.in_1_min.checked_sub(reaps.in_1_min)
    };
    let growth_per_minute = measured.or_else(forked).filter(|growth| *growth > 0);
    Some(LimitUse { at, limit, source, growth_per_minute })
}
