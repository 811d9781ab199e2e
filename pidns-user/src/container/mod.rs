//! What container a process is in: its runtime, id, name, image and pod.
//!
//! The path of its cgroup is read first, then the files that the runtime keeps about it (`state`). Both are
//! claims: a cgroup can be named by any process that may make one, and a file can be old. A file names the
//! container's first process, by PID and mostly by start (a daemon's has none). It is believed for
//! that process, and while it lives in the container's cgroup of the others there.

mod cache;
pub mod cgroup;
mod members;
mod ring;
mod roots;
mod state;
mod tracker;

pub use cache::ContainerCache;
pub use roots::Roots;
pub use state::Api;
pub use tracker::ContainerTracker;
