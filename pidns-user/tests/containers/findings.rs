//! What goes wrong in containers of real runtimes is found, with the processes that it is about; nothing is found about healthy
//! ones. Each finding ends when its cause is removed, and a recording has the same one.
//!
//! The whole machine is watched: what other tests and the machine's own containers do is left out, by the namespace, the processes
//! and the id of the container in question.

mod healthy;
mod stage;
mod troubles;
