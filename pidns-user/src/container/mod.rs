//! Finds the container of a process: its runtime, id, name, image and pod.
//!
//! It reads the path of the process's cgroup first, then the files that the runtime keeps about the container
//! (`state`). Both are only claims: any process that can make a cgroup can choose its name, and a file can be outdated.
//! A file names the container's first process by PID and, except for daemons' files, by start. The file is trusted for
//! that process and, while that process lives in the container's cgroup, for the other processes there.

mod bounded_map;
mod cache;
pub mod cgroup;
mod glances;
mod members;
mod pass;
mod roots;
mod state;
mod tracker;

pub use cache::ContainerCache;
pub use pass::Pass;
pub use roots::Roots;
pub use state::Api;
pub use tracker::ContainerTracker;
