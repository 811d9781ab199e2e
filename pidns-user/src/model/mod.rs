//! What must be remembered to say what a record means. Pure: no clock, no file, no kernel.

mod drift;
mod forest;
mod inits;
mod known;
mod past;
mod reorder;
mod world;
mod zombies;

pub use drift::drift;
pub use forest::{Entry, Forest, Node};
pub use inits::{Inits, SeenSignal};
pub use known::KnownNamespaces;
pub use past::{DeadNamespace, DeadProcess, LIMIT as PAST_LIMIT, Past};
pub use reorder::Reorder;
pub use world::{Change, Domain, Ended, Entered, Identity, Reaper, Resident, Stage, Surprises, World};
pub(crate) use world::{TICK_NS, is_one_time};
pub use zombies::Zombies;
