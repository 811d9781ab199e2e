//! Tests the agent's web server on a loopback port. The clients write and read bytes themselves. The tests need no
//! kernel feature and no privilege.

mod authentication;
mod client;
mod fixture;
mod limits;
mod pages;
mod reload;
mod tls;
mod toolkit;
