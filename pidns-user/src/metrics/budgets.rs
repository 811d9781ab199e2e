//! The limits on PIDs of each namespace, and how much of them is used.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::host_state::NamespaceSummary;
use crate::{
    event::identity::{HostPid, NsInum},
    procfs::{
        Procfs,
        limits::{Limit, LimitReader},
    },
};

/// A reading is reused for this time, because it opens several files for each namespace.
const INTERVAL: Duration = Duration::from_secs(5);

/// The last reading of the limits.
#[derive(Default)]
pub(super) struct PidLimits {
    read: Option<Instant>,
    limits: HashMap<NsInum, (HostPid, Limit)>,
}

impl PidLimits {
    /// Reads the limits of these namespaces if the last reading is too old.
    pub(super) fn refresh<'a>(&mut self, namespaces: impl Iterator<Item = &'a NamespaceSummary>) {
        if self.read.is_some_and(|read| read.elapsed() < INTERVAL) {
            return;
        }
        self.read = Some(Instant::now());
        self.limits.clear();
        let procfs = Procfs::default();
        // If /proc cannot be read, there are no series of limits.
        let Ok(mut reader) = LimitReader::new(&procfs) else { return };
        for ns in namespaces {
            if let Some(init) = ns.init
                && let Ok(Some(limit)) = reader.tightest(init)
            {
                self.limits.insert(ns.inum, (init, limit));
            }
        }
    }

    /// The limit that the namespace's init will reach first: it allows the fewest further processes.
    pub(super) fn of(&self, ns: &NamespaceSummary) -> Option<&Limit> {
        let (init, limit) = self.limits.get(&ns.inum)?;
        // Another namespace may have the inode number now.
        (Some(*init) == ns.init).then_some(limit)
    }
}
