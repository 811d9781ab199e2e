//! Finds containers of real runtimes by their cgroups and files, and in the stream and recordings.
//!
//! The tests run as root. Each one starts its own daemons, with state and images in a scratch directory, and ends
//! them by PID. None uses the network. `cargo xtask setup` installs the runtimes. Without them the tests fail. The
//! program itself looks for runtimes in their default directories. So for tests that run it (all of `findings` and
//! `stream`, and the test of the commands in `runc`), runc keeps its state in the machine's /run/runc, with ids of
//! the test.

mod containerd;
mod daemon;
mod docker;
mod findings;
mod image;
mod lxc;
mod nspawn;
mod podman;
mod podman_rootless;
#[path = "../program/mod.rs"]
mod program;
mod runc;
mod scratch;
mod shared;
mod stream;
