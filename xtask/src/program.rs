//! The program under test.

/// The variable that names the program under test for the tests and the benches.
pub(crate) const PROGRAM_VAR: &str = "PIDNS_TRACE_BIN";
