//! pidns-trace: Linux PID namespaces made visible. DESIGN.md tells how the parts fit together.

pub mod cli;
pub mod commands;
pub mod container;
pub mod count;
pub mod event;
pub mod explanation;
pub mod failure;
pub mod interrupts;
pub mod kernel;
pub mod log;
pub mod model;
pub mod output;
pub mod procfs;
pub mod recording;
pub mod resync;
pub mod selection;
pub mod session;
pub mod signals;
pub mod sink;
pub mod snapshot;
pub mod target;
pub mod text;
pub mod translate;
