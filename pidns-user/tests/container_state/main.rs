//! Reads containers from the files of their runtimes. The tests write these files as each runtime does, in a
//! temporary directory.

mod daemon;
mod files;
mod runtimes;
mod world;
