//! How much is used of the limits on PIDs of a namespace.

use super::{Scene, readings::LimitChain};
use crate::event::{
    INITIAL_NS, ReachedLimit,
    finding::{Evidence, EvidenceSource, Fact},
    identity::{BootNs, NsInum},
};

/// From here on it matters how fast the use grows, and what it is for, in percent.
pub(super) const HALF: u8 = 50;
/// A limit that is reached within this time is nearly reached.
const SOON_SECONDS: u64 = 600;

/// A limit as it was read.
pub(super) struct LimitUse {
    pub(super) at: BootNs,
    pub(super) limit: ReachedLimit,
    growth_per_minute: Option<u64>,
}

impl LimitUse {
    pub(super) fn percent(&self) -> u8 {
        percent(&self.limit).unwrap_or(0)
    }

    fn seconds_left(&self) -> Option<u64> {
        let room = self.limit.value?.saturating_sub(self.limit.current?);
        Some(room.saturating_mul(60) / self.growth_per_minute.filter(|growth| *growth > 0)?)
    }

    /// How many tasks count against it.
    pub(super) fn used(&self) -> Option<u64> {
        self.limit.current
    }

    /// Whether this share is used.
    pub(super) fn is_used_by(&self, percent: u8) -> bool {
        self.percent() >= percent
    }

    /// Whether more than this share is used, or all will be soon.
    pub(super) fn is_nearly_reached(&self, from_percent: u8) -> bool {
        let soon = || self.percent() >= HALF && self.seconds_left().is_some_and(|left| left < SOON_SECONDS);
        self.percent() >= from_percent || soon()
    }

    pub(super) fn evidence(self) -> Evidence {
        let seconds_left = self.seconds_left();
        let Self { at, limit, growth_per_minute } = self;
        let fact = Fact::Limit { limit, growth_per_minute, seconds_left };
        Evidence { source: EvidenceSource::Proc, boot_ns: at, fact }
    }
}

pub(super) fn percent(limit: &ReachedLimit) -> Option<u8> {
    let (value, current) = (limit.value?, limit.current?);
    Some((current.saturating_mul(100) / value.max(1)).min(u64::from(u8::MAX)) as u8)
}

/// Whether it is a limit of the whole machine.
pub(super) fn is_of_the_machine(limit: &ReachedLimit) -> bool {
    limit.kind != "pids_cgroup" && limit.ns.is_none_or(|ns| ns == INITIAL_NS)
}

/// The limit of a namespace's PID 1 of which the largest share is used. Those of the machine are the initial namespace's.
pub(super) fn tightest(scene: &Scene<'_>, inum: NsInum) -> Option<LimitUse> {
    let LimitChain { at, limits, .. } = scene.readings.limits.get(&inum)?;
    let is_initial = scene.world.namespace(inum)?.namespace.level == 0;
    let own = limits.iter().filter(|limit| is_initial || !is_of_the_machine(limit));
    let limit = own.max_by_key(|limit| percent(limit))?.clone();
    let lives = scene.recent.namespace(inum).and_then(|record| record.lives.as_ref());
    let growth_per_minute = lives.and_then(|lives| {
        let (births, reaps) = (lives.births.until(scene.now), lives.reaps.until(scene.now));
        births.in_1_min.checked_sub(reaps.in_1_min).filter(|growth| *growth > 0)
    });
    Some(LimitUse { at: *at, limit, growth_per_minute })
}
