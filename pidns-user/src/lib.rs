//! pidns-trace.
pub mod kernel;
