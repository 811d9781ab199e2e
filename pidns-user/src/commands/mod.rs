//! The commands, one a file.

pub mod check;
mod look;
pub mod pid;
pub mod ps;
pub mod trace;
pub mod tree;
mod watch;
