//! What a refused fork's record leaves to find: the path of the cgroup whose limit refused.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    event::{Body, Event},
    procfs::{Procfs, limits::LimitReader},
    text::Name,
};

/// Most cgroups remembered; with more, all are looked up anew.
const LIMIT: usize = 1_024;
/// A path is believed for that long, and one that was not found is not looked for again: a program may ask for a fork, and be
/// refused, ten thousand times a second.
const AGE: Duration = Duration::from_secs(1);

/// Paths by number of the cgroup.
#[derive(Default)]
pub(super) struct CgroupPaths(HashMap<u64, (Instant, Option<Name>)>);

impl CgroupPaths {
    /// Adds the path to an event that has the number alone.
    pub(super) fn complete(&mut self, event: &mut Event) {
        let Body::ForkFailed { process, limit: Some(limit), .. } = &mut event.body else { return };
        let Some(number) = limit.cgroup_id else { return };
        let now = Instant::now();
        limit.cgroup = match self.0.get(&number) {
            Some((found, path)) if now.duration_since(*found) < AGE => path.clone(),
            _ => {
                if self.0.len() >= LIMIT {
                    self.0.clear();
                }
                let procfs = Procfs::default();
                let path = LimitReader::new(&procfs).ok().and_then(|it| it.pids_cgroup(process.pid, number));
                self.0.insert(number, (now, path.clone()));
                path
            }
        };
    }
}
