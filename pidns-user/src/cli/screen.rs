//! How views for people are laid out: options of every command that has one.

use clap::{Args, ColorChoice};

/// How a view for people is laid out.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct ScreenArgs {
    /// Leave nothing out and shorten nothing, however narrow the terminal.
    ///
    /// On a terminal a table shows what fits: columns give way by their importance, and long texts are shortened (…). A pipe or a
    /// file gets all.
    #[arg(long)]
    pub wide: bool,

    /// Colours: auto is on a terminal only, and off with NO_COLOR set.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
}

impl ScreenArgs {
    /// Whether there are to be colours, in what a terminal shows or something else does.
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
