//! Writes rule files for Prometheus as YAML.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// Rules that Prometheus evaluates together.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) rules: Vec<Rule>,
}

/// A recording rule or an alert.
pub(crate) struct Rule {
    /// `record` or `alert`.
    key: &'static str,
    pub(crate) name: &'static str,
    pub(crate) query: String,
    /// How long the query must have results before the alert fires.
    pub(crate) lasts: Option<&'static str>,
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) annotations: Vec<(&'static str, String)>,
}

impl Group {
    /// The group as a JSON value. `literal` converts each text in it.
    pub(crate) fn json(&self, literal: &dyn Fn(&str) -> String) -> Value {
        let rules = self.rules.iter().map(|rule| rule.json(literal)).collect();
        json!({"name": self.name, "rules": Value::Array(rules)})
    }
}

impl Rule {
    fn json(&self, literal: &dyn Fn(&str) -> String) -> Value {
        let mut rule = json!({"expr": literal(&self.query)});
        rule[self.key] = json!(self.name);
        if let Some(lasts) = self.lasts {
            rule["for"] = json!(lasts);
        }
        for (key, entries) in [("labels", &self.labels), ("annotations", &self.annotations)] {
            for (name, value) in entries {
                rule[key][*name] = json!(literal(value));
            }
        }
        rule
    }

    pub(crate) fn recording(name: &'static str, query: &str) -> Self {
        let query = query.to_owned();
        Self { key: "record", name, query, lasts: None, labels: Vec::new(), annotations: Vec::new() }
    }

    pub(crate) fn alert(name: &'static str, query: &str, lasts: &'static str) -> Self {
        Self { key: "alert", lasts: Some(lasts), ..Self::recording(name, query) }
    }
}

/// The text of a rule file, with `comment` at its top.
pub(crate) fn text(comment: &str, groups: &[Group]) -> String {
    let mut out = String::new();
    for line in comment.lines() {
        let _ = writeln!(out, "# {line}");
    }
    out.push_str("groups:\n");
    for group in groups {
        let _ = writeln!(out, "  - name: {}\n    rules:", quoted(group.name));
        for rule in &group.rules {
            write_rule(&mut out, rule);
        }
    }
    out
}

fn write_rule(out: &mut String, rule: &Rule) {
    let _ = writeln!(out, "      - {}: {}\n        expr: |-", rule.key, quoted(rule.name));
    for line in rule.query.lines() {
        let _ = writeln!(out, "          {line}");
    }
    if let Some(lasts) = rule.lasts {
        let _ = writeln!(out, "        for: {}", quoted(lasts));
    }
    for (key, entries) in [("labels", &rule.labels), ("annotations", &rule.annotations)] {
        if !entries.is_empty() {
            let _ = writeln!(out, "        {key}:");
        }
        for (name, value) in entries {
            let _ = writeln!(out, "          {name}: {}", quoted(value));
        }
    }
}

/// A JSON string is also a YAML string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_file_is_yaml_in_prometheus_form() {
        let mut alert = Rule::alert("Down", "up == 0\nor absent(up)", "5m");
        alert.labels = vec![("severity", "warning".to_owned())];
        alert.annotations = vec![("summary", "{{ $labels.instance }} is \"down\": why?".to_owned())];
        let group = Group { name: "g", rules: vec![Rule::recording("instance:up:sum", "sum(up)"), alert] };
        assert_eq!(
            text("Made by\na program.", &[group]),
            "# Made by\n# a program.\ngroups:\n  - name: \"g\"\n    rules:\n      - record: \"instance:up:sum\"\n        \
             expr: |-\n          sum(up)\n      - alert: \"Down\"\n        expr: |-\n          up == 0\n          or \
             absent(up)\n        for: \"5m\"\n        labels:\n          severity: \"warning\"\n        annotations:\n          \
             summary: \"{{ $labels.instance }} is \\\"down\\\": why?\"\n"
        );
    }
}
