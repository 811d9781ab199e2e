//! Finds the path of the cgroup whose limit refused a fork. The record only has its number.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    event::{Body, Event},
    procfs::{Procfs, limits::LimitReader},
    text::Name,
};

/// Capacity of the memory of paths. When it is full, all are read again.
const LIMIT: usize = 1_024;
/// A path, or a failed search for one, is remembered this long: a program may request ten thousand forks a second, all
/// refused.
const AGE: Duration = Duration::from_secs(1);

/// Limit for directories in a search for a cgroup whose process is gone. Such a search is made at most once in [`AGE`].
/// It costs about 10 µs for each directory, in the stream's thread, and is only needed without CAP_DAC_READ_SEARCH.
const MAX_FOLDERS: usize = 1_000;

/// Paths by the cgroup's number.
#[derive(Default)]
pub(super) struct CgroupPaths {
    found: HashMap<u64, (Instant, Option<Name>)>,
    /// When directories were last searched.
    looked_through: Option<Instant>,
}

impl CgroupPaths {
    /// Adds the path to an event that only has the number.
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
                    // The process may be gone, or in another cgroup.
                    reader.pids_cgroup(process.pid, number).or_else(|| {
                        let is_due = self.looked_through.is_none_or(|at| now.duration_since(at) >= AGE);
                        self.looked_through = Some(now).filter(|_| is_due).or(self.looked_through);
                        reader.cgroup_of_number(number, if is_due { MAX_FOLDERS } else { 0 })
                    })
                });
                self.found.insert(number, (now, path.clone()));
                path
            }
        };
    }
}
