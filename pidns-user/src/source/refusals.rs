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

/// Most cgroups remembered; with more, all are read anew.
const LIMIT: usize = 1_024;
/// A path is believed for that long, and one that was not found is not searched for again: a program may ask for a fork, and be
/// refused, ten thousand times a second.
const AGE: Duration = Duration::from_secs(1);

/// Most folders of cgroups that are searched for one whose process is gone, at most once in [`AGE`]: they cost some 10 µs
/// each, in the stream's thread. Only where CAP_DAC_READ_SEARCH is missing: with it a number is enough.
const MOST_FOLDERS: usize = 1_000;

/// Paths by number of the cgroup.
#[derive(Default)]
pub(super) struct CgroupPaths {
    found: HashMap<u64, (Instant, Option<Name>)>,
    /// When folders were last searched.
    looked_through: Option<Instant>,
}

impl CgroupPaths {
    /// Adds the path to an event that has the number alone.
    pub(super) fn complete(&mut self, event: &mut Event) {
        let (Body::ForkFailed { process, limit: Some(limit), .. }
        | Body::NamespaceCreateFailed { creator: process, limit: Some(limit), .. }) = &mut event.body
        else {
            return;
        };
        let Some(number) = limit.cgroup_id else { return };
        let now = Instant::now();
        limit.cgroup = match self.found.get(&number) {
            Some((found, path)) if now.duration_since(*found) < AGE => path.clone(),
            _ => {
                if self.found.len() >= LIMIT {
                    self.found.clear();
                }
                let procfs = Procfs::default();
                let path = LimitReader::new(&procfs).ok().and_then(|reader| {
                    // The process may be gone, or elsewhere.
                    reader.pids_cgroup(process.pid, number).or_else(|| {
                        let is_due = self.looked_through.is_none_or(|at| now.duration_since(at) >= AGE);
                        self.looked_through = Some(now).filter(|_| is_due).or(self.looked_through);
                        reader.cgroup_of_number(number, if is_due { MOST_FOLDERS } else { 0 })
                    })
                });
                self.found.insert(number, (now, path.clone()));
                path
            }
        };
    }
}
