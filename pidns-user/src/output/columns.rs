//! Tables whose rows are all known: each column is as wide as needed, or as the terminal allows.

use std::{borrow::Cow, io, iter};

use unicode_width::UnicodeWidthStr as _;

use super::{
    fit::{GAP, WidthRule, fit, shorten},
    screen::{Paint, Screen},
};
use crate::text::printable;

/// Alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) heading: &'static str,
    pub(super) side: Side,
    pub(super) width_rule: WidthRule,
}

/// A cell of a row.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) paint: Paint,
}

impl Cell {
    pub(super) fn painted(text: String, paint: Paint) -> Self {
        Self { text, paint }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, paint: Paint::None }
    }
}

/// Writes the rows, below their headings if requested. The last column has no trailing blanks. Characters that a
/// terminal would obey are escaped, because texts of a recording can contain anything.
pub(super) fn write(
    columns: &[Column],
    rows: &[Vec<Cell>],
    headings: bool,
    screen: Screen,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let headings = headings.then(|| {
        columns.iter().map(|column| Cell::painted(column.heading.to_owned(), Paint::Bold)).collect::<Vec<_>>()
    });
    let rows = headings.iter().chain(rows);
    let rows: Vec<Vec<(Cow<'_, str>, Paint)>> =
        rows.map(|row| row.iter().map(|cell| (printable(&cell.text), cell.paint)).collect()).collect();
    let natural = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|(text, _)| text.width()).max().unwrap_or(0)
    };
    let natural: Vec<usize> = (0..columns.len()).map(natural).collect();
    let widths = match screen.width {
        Some(width) => {
            let rules: Vec<WidthRule> = columns.iter().map(|column| column.width_rule).collect();
            fit(&natural, &rules, width)
        }
        None => natural.iter().copied().map(Some).collect(),
    };
    let mut line = String::new();
    for row in &rows {
        line.clear();
        // Write blanks only when a text follows.
        let mut blanks = 0;
        let mut is_first = true;
        for ((text, paint), (column, width)) in row.iter().zip(iter::zip(columns, &widths)) {
            let Some(width) = *width else { continue };
            blanks += if is_first { 0 } else { GAP };
            is_first = false;
            let text = shorten(text, width, column.width_rule.cut);
            let padding = width.saturating_sub(text.width());
            if column.side == Side::Right {
                blanks += padding;
            }
            if !text.is_empty() {
                line.extend(iter::repeat_n(' ', blanks));
                line.push_str(&paint.on(&text, screen.style));
                blanks = 0;
            }
            if column.side == Side::Left {
                blanks += padding;
            }
        }
        writeln!(to, "{line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{
        fit::{Cut, Omit},
        screen::Style,
    };

    fn column(side: Side) -> Column {
        Column { heading: "H", side, width_rule: WidthRule::from(3, 6, Cut::End, Omit::Never) }
    }

    fn table(sides: &[Side], rows: &[&[&str]], screen: Screen) -> String {
        let columns: Vec<Column> = sides.iter().copied().map(column).collect();
        let rows: Vec<Vec<Cell>> =
            rows.iter().map(|row| row.iter().map(|text| Cell::from((*text).to_owned())).collect()).collect();
        let mut out = Vec::new();
        write(&columns, &rows, false, screen, &mut out).expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let pipe = Screen::default();
        let wide = table(&[Side::Left, Side::Right], &[&["名", "1"], &["abc", "前"]], pipe);
        assert_eq!(wide, "名    1\nabc  前\n", "two columns each");
        let sides = [Side::Left, Side::Right, Side::Left];
        assert_eq!(table(&sides, &[&["→a", "1", "x"], &["b", "10", ""]], pipe), "→a   1  x\nb   10\n");
    }

    #[test]
    fn columns_fit_the_terminal() {
        let terminal = Screen { width: Some(12), style: Style::Plain };
        let rows: [&[&str]; 2] = [&["a-long-name", "1"], &["b", "a-number"]];
        assert_eq!(table(&[Side::Left, Side::Right], &rows, terminal), "a-l…       1\nb     a-num…\n");
    }

    #[test]
    fn colours_take_no_width() {
        let rows = [vec![Cell::painted("a".to_owned(), Paint::Red), Cell::from("b".to_owned())]];
        let mut out = Vec::new();
        let screen = Screen { width: Some(80), style: Style::Colour };
        write(&[column(Side::Left), column(Side::Left)], &rows, true, screen, &mut out).expect("memory");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "\x1b[1mH\x1b[0m  \x1b[1mH\x1b[0m\n\x1b[31ma\x1b[0m  b\n"
        );
    }
}
