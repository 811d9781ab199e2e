//! Writes YAML for people to read.

use std::fmt::Write as _;

use serde_json::Value;

use super::choice::{EXPRESSION, OPTIONAL};

/// Writes the value as a document.
pub(super) fn document(value: &Value) -> String {
    let mut out = String::new();
    block(&mut out, value, 0);
    out
}

/// Writes a non-empty mapping or sequence, with each entry on its own line.
fn block(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = key_text(key);
                if let Some(path) = value.as_str().and_then(|text| text.strip_prefix(OPTIONAL)) {
                    let field = format!("{key}: {{{{ toJson .Values.{path} }}}}");
                    let _ = writeln!(out, "{:indent$}{{{{ if .Values.{path} }}}}{field}{{{{ end }}}}", "");
                    continue;
                }
                let _ = write!(out, "{:indent$}{key}:", "");
                after_key(out, value, indent);
            }
        }
        Value::Array(values) => {
            for value in values {
                let _ = write!(out, "{:indent$}-", "");
                if let (Value::Object(fields), false) = (value, is_empty(value)) {
                    // The first field is on the same line as the dash.
                    let mut text = String::new();
                    block(&mut text, &Value::Object(fields.clone()), indent + 2);
                    let _ = write!(out, " {}", text.trim_start());
                } else {
                    after_key(out, value, indent);
                }
            }
        }
        _ => {
            out.push_str(&scalar(value));
            out.push('\n');
        }
    }
}

fn after_key(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(_) | Value::Array(_) if !is_empty(value) => {
            out.push('\n');
            block(out, value, indent + 2);
        }
        Value::String(text) if text.contains('\n') && !text.starts_with(EXPRESSION) => {
            // `|-` strips the final line break, `|` keeps it.
            let _ = writeln!(out, " {}", if text.ends_with('\n') { "|" } else { "|-" });
            for line in text.trim_end_matches('\n').lines() {
                let _ = writeln!(out, "{}", format!("{:width$}{line}", "", width = indent + 2).trim_end());
            }
        }
        _ => {
            let _ = writeln!(out, " {}", scalar(value));
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(values) => values.is_empty(),
        _ => false,
    }
}

fn key_text(key: &str) -> String {
    let is_plain = key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    if is_plain { key.to_owned() } else { Value::from(key).to_string() }
}

fn scalar(value: &Value) -> String {
    let Value::String(text) = value else { return value.to_string() };
    if let Some(expression) = text.strip_prefix(EXPRESSION) {
        return expression.to_owned();
    }
    // Names and paths need no quotes, because no reader takes them for another type. All others are written as JSON.
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if is_plain { text.clone() } else { value.to_string() }
}
