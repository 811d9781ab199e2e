//! pidns-trace: Linux PID namespaces made visible. docs/architecture.md shows how the parts fit together.

#[expect(
    rustdoc::broken_intra_doc_links,
    reason = "clap prints these comments as help: [repeatable] is no link"
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
