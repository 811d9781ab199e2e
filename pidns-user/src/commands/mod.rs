//! The commands, one a file.

pub mod check;
mod ending;
pub mod explain;
mod eyes;
mod find;
mod followed;
mod live;
mod look;
pub mod pid;
pub mod ps;
pub mod record;
mod recorded;
pub mod replay;
pub mod trace;
pub mod tree;
mod unread;
mod voice;
mod watch;
