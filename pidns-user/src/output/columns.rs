//! Rows that are all known, in columns as wide as they have to be.

use std::{borrow::Cow, io};

use unicode_width::UnicodeWidthStr as _;

use crate::text::printable;

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A text that takes at least so many columns of a terminal: wide characters take two.
pub(super) fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// Writes the rows, the last column without blanks after it. What a terminal would obey is escaped: a state of a recording, say.
pub(super) fn write(sides: &[Side], rows: &[Vec<String>], to: &mut dyn io::Write) -> io::Result<()> {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|text| printable(text)).collect()).collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|text| text.width()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..sides.len()).map(width).collect();
    for row in &rows {
        let mut line = String::new();
        for ((text, side), &width) in row.iter().zip(sides).zip(&widths) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let padding = " ".repeat(width - text.width());
            line.extend(match side {
                Side::Left => [text, padding.as_str()],
                Side::Right => [padding.as_str(), text],
            });
        }
        writeln!(to, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest() {
        let rows = [
            vec!["→a".to_owned(), "1".to_owned(), "x".to_owned()],
            vec!["b".to_owned(), "10".to_owned(), String::new()],
        ];
        assert_eq!(padded("名a", 5), "名a  ");
        assert_eq!(padded("too long", 3), "too long");
        let wide = [vec!["名".to_owned(), "1".to_owned()], vec!["abc".to_owned(), "前".to_owned()]];
        let mut out = Vec::new();
        write(&[Side::Left, Side::Right], &wide, &mut out).expect("memory");
        assert_eq!(String::from_utf8(out).expect("text"), "名    1\nabc  前\n", "two columns each");
        let mut out = Vec::new();
        write(&[Side::Left, Side::Right, Side::Left], &rows, &mut out).expect("memory");
        assert_eq!(String::from_utf8(out).expect("text"), "→a   1  x\nb   10\n");
    }
}
