//! The kernel side's own log (`--bpf-log`), printed on stderr.

use std::io::{self, Write as _};

use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

use crate::kernel::load::Loaded;

/// Prints each line as it is.
#[derive(Debug)]
struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Whoever has closed stderr wants no words.
        let _ = writeln!(io::stderr(), "pidns-trace: kernel side: {}: {}", record.level(), record.args());
    }

    fn flush(&self) {}
}

/// Reads the log.
pub struct KernelLog(EbpfLogger<Stderr>);

impl KernelLog {
    /// The log of this object.
    pub fn new(loaded: &mut Loaded) -> Result<Self, aya_log::Error> {
        loaded.logger(Stderr).map(Self)
    }

    /// Prints what has come since.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}
