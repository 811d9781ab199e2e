//! What drives a source of events, and keeps the model true to the kernel.

pub mod printer;
pub mod resync;
