//! Commands on recordings that each test writes: events that no machine could be made to produce in time, or should.
//!
//! It needs no kernel and no privilege: the real program reads them.

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
mod story;
mod terminal;
mod tracers;
