//! The documents: that their links and anchors lead somewhere.

mod links;
mod mentions;
mod page;

pub(crate) use links::check as check_links;
