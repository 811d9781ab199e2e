//! The kernel side's own log (`--bpf-log`).

use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

use super::load::Loaded;

/// Prints a line of the log.
pub type PrintLine = fn(&dyn std::fmt::Display);

/// Passes each line on unchanged.
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

/// Reader of the kernel side's log.
pub struct KernelLog(EbpfLogger<Lines>);

impl KernelLog {
    /// Opens the log of this object; each line goes to `print`.
    pub fn new(loaded: &mut Loaded, print: PrintLine) -> Result<Self, aya_log::Error> {
        loaded.logger(Lines(print)).map(Self)
    }

    /// Passes on the lines since the last call.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}
