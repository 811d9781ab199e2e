//! Choices that the chart offers its user.

use serde_json::Value;

/// Marks a string that a template contains as an expression, without quotes. No manifest has this character.
pub(super) const EXPRESSION: char = '\u{1}';

/// Marks a string that stands for a field which the chart has only if the value at the path in the string is set.
pub(super) const OPTIONAL: char = '\u{2}';

/// The two kinds of manifests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For `kubectl apply`: each choice is its default.
    Plain,
    /// For the chart's templates: each choice is an expression.
    Chart,
}

/// One value of values.yaml.
#[derive(Clone)]
pub(super) struct Choice {
    /// Its key in values.yaml, as `section.name` if it is in a section.
    pub(super) path: &'static str,
    pub(super) default: Value,
    pub(super) comment: &'static str,
}

impl Form {
    /// The default, or an expression for it. The expression prints JSON, which is valid YAML.
    pub(super) fn of(self, choice: &Choice) -> Value {
        match self {
            Self::Plain => choice.default.clone(),
            Self::Chart => Value::from(format!("{EXPRESSION}{{{{ toJson .Values.{} }}}}", choice.path)),
        }
    }

    /// Like [`Self::of`], for a field that is absent as long as its choice is empty.
    pub(super) fn if_set(self, choice: &Choice) -> Value {
        match self {
            Self::Plain if is_empty(&choice.default) => Value::Null,
            Self::Plain => choice.default.clone(),
            Self::Chart => Value::from(format!("{OPTIONAL}{}", choice.path)),
        }
    }

    /// A text without a choice, in which a template must not find expressions.
    pub(super) fn literal(self, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Chart => escaped(text),
        }
    }
}

/// Replaces each run of braces with an expression that prints it, in quotes that YAML does not escape. It replaces
/// the whole run: a brace left before an expression would become part of the expression.
fn escaped(text: &str) -> String {
    let is_brace = |c: char| c == '{' || c == '}';
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_brace) {
        let (before, run) = rest.split_at(start);
        let end = run.find(|c| !is_brace(c)).unwrap_or(run.len());
        let (run, after) = run.split_at(end);
        out.push_str(before);
        if run.len() == 1 {
            out.push_str(run);
        } else {
            out.push_str(&format!("{{{{ `{run}` }}}}"));
        }
        rest = after;
    }
    out + rest
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => value.is_null(),
    }
}

/// Removes fields without a value.
pub(super) fn without_absent(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let present = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(present.map(|(key, value)| (key, without_absent(value))).collect())
        }
        Value::Array(values) => values.into_iter().map(without_absent).collect(),
        other => other,
    }
}
