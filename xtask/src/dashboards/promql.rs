//! Finds the metrics and labels in a PromQL query. It knows only the part of the language that dashboards/ uses.

use std::collections::BTreeSet;

/// The names that a query uses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    /// Each metric with the labels in its matchers.
    pub(crate) metrics: Vec<(String, Vec<String>)>,
    /// The labels of `by`, `without`, `on`, `ignoring`, `group_left` and `group_right`.
    pub(crate) grouping: BTreeSet<String>,
    /// Labels that `label_join` and `label_replace` create.
    pub(crate) made: BTreeSet<String>,
}

const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const WORDS: [&str; 6] = ["and", "or", "unless", "offset", "bool", "inf"];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    /// A range in brackets.
    Range,
    Sign(char),
}

/// Reads a query. It ignores errors, which Prometheus reports.
pub(crate) fn uses(query: &str) -> Uses {
    let tokens = tokens(query);
    let mut uses = Uses::default();
    let mut at = 0;
    while at < tokens.len() {
        let Token::Word(word) = &tokens[at] else {
            at += 1;
            continue;
        };
        let next = tokens.get(at + 1);
        at += 1;
        if GROUPING.contains(&word.as_str()) && next == Some(&Token::Sign('(')) {
            let inside = tokens[at + 1..].iter().take_while(|token| **token != Token::Sign(')'));
            uses.grouping.extend(inside.filter_map(word_of));
            at += tokens[at..].iter().position(|token| *token == Token::Sign(')')).unwrap_or(0);
        } else if next == Some(&Token::Sign('(')) {
            if word == "label_join" || word == "label_replace" {
                uses.made.extend(second_argument(&tokens[at..]));
            }
        } else if next == Some(&Token::Sign('{')) {
            let inside: Vec<&Token> =
                tokens[at + 1..].iter().take_while(|token| **token != Token::Sign('}')).collect();
            let labels = inside.iter().filter_map(|token| word_of(token)).collect();
            uses.metrics.push((word.clone(), labels));
            at += inside.len() + 1;
        } else if matches!(next, Some(Token::Word(next)) if next == "by" || next == "without") {
            // This is an aggregation with `by` or `without`, and not a metric.
        } else if !WORDS.contains(&word.as_str()) && !GROUPING.contains(&word.as_str()) {
            uses.metrics.push((word.clone(), Vec::new()));
        }
    }
    uses
}

fn word_of(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) => Some(word.clone()),
        _ => None,
    }
}

/// The second argument of a call, if it is a string. The tokens begin with the parenthesis.
fn second_argument(tokens: &[Token]) -> Option<String> {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Sign('(' | '{') => depth += 1,
            Token::Sign(')' | '}') => depth -= 1,
            Token::Sign(',') if depth == 1 => {
                return match tokens.get(at + 1) {
                    Some(Token::Text(text)) => Some(text.clone()),
                    _ => None,
                };
            }
            _ => {}
        }
    }
    None
}

fn tokens(query: &str) -> Vec<Token> {
    let mut rest = query;
    let mut tokens = Vec::new();
    while let Some(first) = rest.chars().next() {
        let length = if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
            let end = end.unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            end
        } else if first.is_ascii_digit() || first == '.' {
            // A number, or a duration such as 6h.
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-')).unwrap_or(rest.len())
        } else if first == '"' {
            let end = closing_quote(rest);
            tokens.push(Token::Text(rest[1..end].to_owned()));
            end + 1
        } else if first == '[' {
            tokens.push(Token::Range);
            rest.find(']').map_or(rest.len(), |end| end + 1)
        } else {
            if !first.is_whitespace() {
                tokens.push(Token::Sign(first));
            }
            first.len_utf8()
        };
        rest = &rest[length.min(rest.len())..];
    }
    tokens
}

/// The position of the closing quote. The text begins with the opening one.
fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn metrics_are_found_with_the_labels_that_select_them() {
        let uses = uses(
            r#"sum by (le, job) (rate(a_bucket{job=~"x}\"y", le!="1"}[5m] offset 6h)) / b > 1e-9 and c"#,
        );
        let labels = vec!["job".to_owned(), "le".to_owned()];
        let metrics =
            vec![("a_bucket".to_owned(), labels), ("b".to_owned(), vec![]), ("c".to_owned(), vec![])];
        assert_eq!(uses.metrics, metrics);
        assert_eq!(uses.grouping, set(&["le", "job"]));
    }

    #[test]
    fn joined_and_made_labels_are_distinguished_from_metrics() {
        let query = r#"label_join(a{x="1"} * on (i) group_left (p) b, "workload", "/", "p")"#;
        let uses = uses(query);
        assert_eq!(uses.made, set(&["workload"]));
        assert_eq!(uses.grouping, set(&["i", "p"]));
        assert_eq!(uses.metrics.len(), 2, "{uses:?}");
    }

    #[test]
    fn names_of_recording_rules_keep_their_colons() {
        assert_eq!(uses("max(cluster:a:sum)").metrics, [("cluster:a:sum".to_owned(), vec![])]);
    }
}
