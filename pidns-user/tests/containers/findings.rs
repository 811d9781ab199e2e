//! Findings about containers of real runtimes. Each fault is found with its processes, and healthy containers have no
//! findings. A finding ends when its cause is removed, and a recording has the same one.
//!
//! The tests trace the whole machine. They ignore other tests and the machine's own containers, by the namespace, the
//! processes and the id of the container.

mod capture;
mod healthy;
mod troubles;
