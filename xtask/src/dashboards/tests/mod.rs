//! What holds of all dashboards, rules and alerts.

mod conventions;
mod names;
mod queries;
mod rule_files;
