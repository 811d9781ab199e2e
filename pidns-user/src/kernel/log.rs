//! The kernel side's own log (`--bpf-log`).

use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

use super::load::Loaded;

/// Where a line of the log goes.
pub type PrintLine = fn(&dyn std::fmt::Display);

/// Hands on each line as it is.
#[derive(Debug)]
struct Lines(PrintLine);

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        (self.0)(&format_args!("kernel side: {}: {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

/// Reads the log.
pub struct KernelLog(EbpfLogger<Lines>);

impl KernelLog {
    /// The log of this object, each line of which is handed to `print`.
    pub fn new(loaded: &mut Loaded, print: PrintLine) -> Result<Self, aya_log::Error> {
        loaded.logger(Lines(print)).map(Self)
    }

    /// Hands on what has come since.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}
