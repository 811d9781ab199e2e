//! The commands, one a file.

pub mod check;
mod ending;
pub mod explain;
pub mod failure;
pub mod interrupts;
mod live;
mod look;
pub(crate) mod notices;
pub mod pid;
pub mod ps;
pub mod record;
mod recorded;
pub mod replay;
pub mod trace;
pub mod tree;
pub(crate) mod unread;
mod watch;
