//! Containers that real runtimes run, as their cgroups and files tell of them, and as the stream and recordings do.
//!
//! As root. Each test has its daemons, state and images in a scratch folder, starts them itself and ends them
//! by PID; nothing is on a network. `cargo xtask setup` installs the runtimes, and without them the tests
//! fail.

mod containerd;
mod daemon;
mod docker;
mod podman;
mod runc;
mod scratch;
mod stream;
