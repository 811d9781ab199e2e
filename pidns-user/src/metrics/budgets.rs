//! How much is used of the limits on PIDs of each namespace.

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

/// How long a reading is used: each takes some files for each namespace.
const INTERVAL: Duration = Duration::from_secs(5);

/// The limits as they were read last.
#[derive(Default)]
pub(super) struct Budgets {
    read: Option<Instant>,
    limits: HashMap<NsInum, (HostPid, Limit)>,
}

impl Budgets {
    /// Reads the limits of these namespaces, where the last reading is too old.
    pub(super) fn refresh<'a>(&mut self, namespaces: impl Iterator<Item = &'a NamespaceSummary>) {
        if self.read.is_some_and(|read| read.elapsed() < INTERVAL) {
            return;
        }
        self.read = Some(Instant::now());
        self.limits.clear();
        let procfs = Procfs::default();
        // A machine whose /proc cannot be read has no such series.
        let Ok(mut reader) = LimitReader::new(&procfs) else { return };
        for ns in namespaces {
            if let Some(init) = ns.init
                && let Ok(Some(limit)) = reader.tightest(init)
            {
                self.limits.insert(ns.inum, (init, limit));
            }
        }
    }

    /// The tightest limit of a namespace's init.
    pub(super) fn of(&self, ns: &NamespaceSummary) -> Option<&Limit> {
        let (init, limit) = self.limits.get(&ns.inum)?;
        // Another namespace may have got the number since.
        (Some(*init) == ns.init).then_some(limit)
    }
}
