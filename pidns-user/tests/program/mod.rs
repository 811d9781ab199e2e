//! The program under test, for tests and benches.

use std::path::PathBuf;

/// The program that `PIDNS_TRACE_BIN` names, else the one that cargo built with this test.
pub(crate) fn path() -> PathBuf {
    std::env::var_os("PIDNS_TRACE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_pidns-trace").into()).into()
}
