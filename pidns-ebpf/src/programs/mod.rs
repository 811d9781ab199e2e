//! One kernel hook a file, each with the prototype it relies on.

mod exec;
mod exit;
mod fork;
mod free;
mod signal;
mod syscall;
