//! What must be remembered to say what a record means. Pure: no clock, no file, no kernel.

mod forest;
mod inits;
mod known;
mod reorder;
mod zombies;

pub use forest::{Entry, Forest, Node};
pub use inits::{Inits, SeenSignal};
pub use known::KnownNamespaces;
pub use reorder::Reorder;
pub use zombies::Zombies;
