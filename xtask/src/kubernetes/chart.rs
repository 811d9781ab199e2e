//! Makes the chart: Chart.yaml, values.yaml, and the conditions around its templates.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{agent, choice::Choice, metadata, monitoring, web, yaml};

pub(super) fn chart() -> String {
    yaml::document(&json!({
        "apiVersion": "v2",
        "name": metadata::NAME,
        "description": "Metrics of PID namespaces: an agent on each node",
        "type": "application",
        "version": env!("CARGO_PKG_VERSION"),
        "appVersion": env!("CARGO_PKG_VERSION"),
        "kubeVersion": ">=1.30.0-0",
    }))
}

/// values.yaml: all values with their defaults.
pub(super) fn values() -> String {
    let mut out = String::new();
    let mut section = "";
    let all = [agent::choices(), web::choices(), monitoring::choices()].concat();
    for Choice { path, default, comment } in &all {
        let (in_section, name) = path.split_once('.').unwrap_or(("", path));
        if in_section != section && !in_section.is_empty() {
            let _ = writeln!(out, "{in_section}:");
        }
        section = in_section;
        let indent = if section.is_empty() { "" } else { "  " };
        let _ = writeln!(out, "{indent}# {comment}");
        let entry = Value::Object([(name.to_owned(), default.clone())].into_iter().collect());
        for line in yaml::document(&entry).lines() {
            let _ = writeln!(out, "{indent}{line}");
        }
    }
    out
}

/// Includes the template only if the value at `path` is true.
pub(super) fn only_if(path: &str, template: &str) -> String {
    format!("{{{{ if .Values.{path} }}}}\n{template}{{{{ end }}}}\n")
}
