//! Runs commands on recordings that each test writes. Their events would take too long on a real machine, or would
//! harm it.
//!
//! The real program reads them. The tests need no kernel feature and no privilege.

mod builder;
mod choices;
mod damage;
mod escapes;
mod found;
mod names;
mod pid;
#[path = "../program/mod.rs"]
mod program;
#[path = "../pty/mod.rs"]
mod pty;
mod replay;
mod terminal;
mod tracers;
