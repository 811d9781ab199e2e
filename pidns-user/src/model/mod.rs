//! The model: the processes and namespaces that exist, and their recent history. Pure: no clock, no file, no kernel.

mod drift;
mod forest;
mod helpers;
mod recent;
mod teardown;
mod window;
mod world;

pub use drift::drift;
pub use forest::{Entry, Forest, Node, Origin};
pub use helpers::is_runtime_helper;
pub use recent::{Death, Incident, IncidentKind, Lives, MainProcess, NamespaceRecord, Recent, TornDown};
pub use teardown::{Awaited, AwaitedBy, Reason};
pub use window::Window;
pub use world::{
    Change, DeadNamespace, DeadProcess, Ended, Entered, HISTORY_LIMIT, History, Inconsistencies,
    NamespaceState, Observation, ProcessState, Reaper, Stage, World,
};
