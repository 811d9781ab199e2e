//! The agent's web server on a loopback port, with clients that write and read bytes themselves. Needs no kernel feature and no
//! privilege.

mod authentication;
mod client;
mod fixture;
mod limits;
mod pages;
mod reload;
mod tls;
mod toolkit;
