//! Commands on recordings that each test tells: what no machine could be made to do in time, and what nobody should.
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
