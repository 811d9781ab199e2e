//! pidns-trace makes Linux PID namespaces visible. docs/architecture.md shows how its parts fit together.

#[expect(
    rustdoc::broken_intra_doc_links,
    reason = "clap prints these comments as help: [repeatable] is not a link"
)]
pub mod cli;
pub mod commands;
pub mod container;
pub mod event;
pub mod explanation;
pub mod filter;
pub mod findings;
pub mod kernel;
pub mod metrics;
pub mod model;
pub mod output;
pub mod pipeline;
pub mod procfs;
pub mod signals;
pub mod source;
pub mod target;
pub mod text;
pub mod web;
