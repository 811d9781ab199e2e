//! What a view for people is written to: how wide it is, and whether it has colours.

use std::borrow::Cow;

/// Colours, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Plain text.
    #[default]
    Plain,
    /// With ANSI colours.
    Colour,
}

/// What a table or a text is laid out for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Screen {
    /// Columns of the terminal, which no line exceeds; `None` where everything is to be written, such as to a pipe or a file.
    pub width: Option<usize>,
    /// Colours, or none.
    pub style: Style,
}

/// How a text stands out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paint {
    /// Not at all.
    #[default]
    None,
    /// What is broken, or ends.
    Red,
    /// What is well, or begins.
    Green,
    /// What needs attention.
    Yellow,
    /// What comes in from outside.
    Cyan,
    /// What happens all the time.
    Dim,
    /// Headings.
    Bold,
}

impl Paint {
    /// What turns it on and off.
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

    /// The text in this paint.
    pub fn on(self, text: &str, style: Style) -> Cow<'_, str> {
        match self.codes(style) {
            ("", _) => Cow::Borrowed(text),
            (on, off) => Cow::Owned(format!("{on}{text}{off}")),
        }
    }
}
