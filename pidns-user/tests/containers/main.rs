//! Containers that real runtimes run, by their cgroups and files, and by the stream and recordings.
//!
//! As root. Each test has its daemons, state and images in a scratch folder, starts them itself and ends them
//! by PID; nothing is on a network. `cargo xtask setup` installs the runtimes, and without them the tests
//! fail. Where the program itself is asked (all of `findings` and `stream`, of `runc` the test of the commands), which reads
//! where runtimes are on any machine, runc keeps its state in the machine's own /run/runc, under ids of the test's.

mod containerd;
mod daemon;
mod docker;
mod findings;
mod image;
mod lxc;
mod nspawn;
mod podman;
#[path = "../program/mod.rs"]
mod program;
mod runc;
mod scratch;
mod shared;
mod stream;
