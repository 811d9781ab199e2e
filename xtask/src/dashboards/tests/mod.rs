//! Checks of all dashboards, rules and alerts.

mod conventions;
mod many_machines;
mod names;
mod queries;
mod rule_files;
