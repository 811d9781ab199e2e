//! Where events come from: the running kernel, or a recording; and how snapshots are taken.

pub mod live;
pub mod observer;
pub mod recording;
pub mod translate;
