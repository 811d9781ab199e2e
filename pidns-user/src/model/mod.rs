//! What must be remembered to say what a record means. Pure: no clock, no file, no kernel.

mod drift;
mod forest;
mod world;

pub use drift::drift;
pub use forest::{Entry, Forest, Node};
pub use world::{
    Change, DeadNamespace, DeadProcess, Ended, Entered, HISTORY_LIMIT, History, Inconsistencies,
    NamespaceState, ProcessState, Reaper, Stage, World,
};
