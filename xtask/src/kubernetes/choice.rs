//! What the user of the chart chooses.

use serde_json::Value;

/// Begins a string that a template has as it is, and not as a string. No manifest has this character.
pub(super) const EXPRESSION: char = '\u{1}';

/// What manifests are made for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// To apply as they are: each choice is its default.
    Plain,
    /// As templates of the chart: each choice is an expression.
    Chart,
}

/// One value of values.yaml.
pub(super) struct Choice {
    /// Its name there; `section.name` where it is in a section.
    pub(super) path: &'static str,
    pub(super) default: Value,
    pub(super) comment: &'static str,
}

impl Form {
    /// The default, or the expression of it. All of YAML is written as JSON, which is YAML too.
    pub(super) fn of(self, choice: &Choice) -> Value {
        match self {
            Self::Plain => choice.default.clone(),
            Self::Chart => Value::from(format!("{EXPRESSION}{{{{ toJson .Values.{} }}}}", choice.path)),
        }
    }

    /// A text with no choice in it, in which a template must not find expressions.
    pub(super) fn literal(self, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Chart => escaped(text),
        }
    }
}

/// Each run of braces as what an expression prints, in quotes that YAML does not escape. The whole run: a brace that was left
/// before an expression would become part of its own.
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
