//! Finds the program under test, for tests and benches.

use std::path::PathBuf;

/// The program in `PIDNS_TRACE_BIN`, or by default the one that cargo built with this test.
pub(crate) fn path() -> PathBuf {
    std::env::var_os("PIDNS_TRACE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_pidns-trace").into()).into()
}
