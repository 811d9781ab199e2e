//! Layout of output for people: options shared by many commands.

use clap::{Args, ColorChoice};

/// Layout of output for people.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct ScreenArgs {
    /// Omit and shorten nothing, even on a narrow terminal.
    ///
    /// On a terminal a table shows what fits: less important columns are omitted, and long texts are shortened (…). A
    /// pipe or a file gets everything.
    #[arg(long)]
    pub wide: bool,

    /// Colours; auto: only on a terminal, without NO_COLOR.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
}

impl ScreenArgs {
    /// Whether to use colours, on a terminal or on another output.
    pub fn has_colour(&self, is_terminal: bool) -> bool {
        match self.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        }
    }
}
