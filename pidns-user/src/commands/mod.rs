//! The commands, one a file.

pub mod agent;
mod asked;
mod background;
pub mod check;
pub mod closed_output;
pub mod completions;
mod ending;
pub mod explain;
pub mod failure;
pub mod findings;
mod host_observer;
pub mod interrupts;
mod live;
mod look;
pub mod man;
mod notices;
pub mod pid;
pub mod ps;
mod readings;
pub mod record;
mod recorded;
pub mod replay;
mod threadless;
pub mod trace;
pub mod tree;
mod unread;
mod watch;
