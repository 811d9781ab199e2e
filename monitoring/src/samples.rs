//! Reads the text format in which a server shows its own metrics.

/// The sum of a metric over its series with all of these labels, each as `name="value"`. None if there is none.
pub(crate) fn sum(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let of_line = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let (found, value) = match rest.strip_prefix('{') {
            // A value has no brace: the last one ends the labels.
            Some(rest) => rest.rsplit_once('}')?,
            None if rest.starts_with(' ') => ("", rest),
            None => return None,
        };
        if !labels.iter().all(|label| found.contains(label)) {
            return None;
        }
        value.split_whitespace().next()?.parse::<f64>().ok()
    };
    text.lines().filter_map(of_line).fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

#[cfg(test)]
mod tests {
    use super::sum;

    const TEXT: &str =
        "# TYPE rows gauge\nrows{type=\"a\"} 1\nrows{type=\"b\",x=\"}\"} 2.5\nrows_total 7 1700000000000\n";

    #[test]
    fn series_of_a_metric_are_added_up() {
        assert_eq!(sum(TEXT, "rows", &[]), Some(3.5));
        assert_eq!(sum(TEXT, "rows", &["type=\"b\""]), Some(2.5));
        assert_eq!(sum(TEXT, "rows_total", &[]), Some(7.0));
    }

    #[test]
    fn a_metric_that_is_not_there_is_not_zero() {
        assert_eq!(sum(TEXT, "row", &[]), None);
        assert_eq!(sum(TEXT, "rows", &["type=\"c\""]), None);
    }
}
