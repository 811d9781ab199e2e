//! Width and colours of an output for people.

use std::borrow::Cow;

/// Whether to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Plain text.
    #[default]
    Plain,
    /// With ANSI colours.
    Colour,
}

/// Layout of a table or text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Screen {
    /// Columns of the terminal, which no line exceeds; `None`: unlimited, for a pipe or a file.
    pub width: Option<usize>,
    /// Whether to use colours.
    pub style: Style,
}

/// Highlighting of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paint {
    /// None.
    #[default]
    None,
    /// Broken things and ends.
    Red,
    /// Healthy things and beginnings.
    Green,
    /// Things that need attention.
    Yellow,
    /// Things that come from outside.
    Cyan,
    /// Frequent things.
    Dim,
    /// Headings.
    Bold,
}

impl Paint {
    /// The codes that start and end it.
    pub fn codes(self, style: Style) -> (&'static str, &'static str) {
        const OFF: &str = "\x1b[0m";
        match (style, self) {
            (Style::Plain, _) | (_, Self::None) => ("", ""),
            (_, Self::Red) => ("\x1b[31m", OFF),
            (_, Self::Green) => ("\x1b[32m", OFF),
            (_, Self::Yellow) => ("\x1b[33m", OFF),
            (_, Self::Cyan) => ("\x1b[36m", OFF),
            (_, Self::Dim) => ("\x1b[2m", OFF),
            (_, Self::Bold) => ("\x1b[1m", OFF),
        }
    }

    /// The text with these codes.
    pub fn on(self, text: &str, style: Style) -> Cow<'_, str> {
        match self.codes(style) {
            ("", _) => Cow::Borrowed(text),
            (on, off) => Cow::Owned(format!("{on}{text}{off}")),
        }
    }
}
