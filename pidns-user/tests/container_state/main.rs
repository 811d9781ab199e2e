//! Containers from the files of their runtimes, written here as each runtime writes them, below a folder of
//! the test's own.

mod daemon;
mod files;
mod runtimes;
mod world;
