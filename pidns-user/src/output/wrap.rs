//! Wraps sentences at spaces to the width of a terminal.

use std::io;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Smallest width for sentences, regardless of their indent.
const LEAST: usize = 20;

/// Writes `text` after `start`, which is `start_width` columns wide. Words that do not fit go to the next line,
/// indented by `indent` columns. A word longer than a line continues on the next line: nothing is omitted.
///
/// # Errors
///
/// The output cannot be written.
pub fn write(
    (start, start_width): (&str, usize),
    text: &str,
    indent: usize,
    width: Option<usize>,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let Some(width) = width else { return writeln!(to, "{start}{text}") };
    // On a terminal hardly wider than the indent there would be no room for text.
    let indent = indent.min(width.saturating_sub(LEAST));
    let mut line = start.to_owned();
    let mut taken = start_width;
    let mut is_first = true;
    for word in text.split(' ') {
        let gap = usize::from(!is_first);
        let needs = word.width();
        if taken + gap + needs > width && taken > indent {
            writeln!(to, "{}", line.trim_end())?;
            line = " ".repeat(indent);
            (taken, is_first) = (indent, true);
        }
        let gap = usize::from(!is_first);
        line.push_str(&" ".repeat(gap));
        taken += gap;
        let mut rest = word;
        loop {
            let part = beginning(rest, width.saturating_sub(taken));
            line.push_str(part);
            taken += part.width();
            rest = &rest[part.len()..];
            if rest.is_empty() {
                break;
            }
            writeln!(to, "{line}")?;
            line = " ".repeat(indent);
            taken = indent;
        }
        is_first = false;
    }
    writeln!(to, "{}", line.trim_end())
}

/// The part of a word that fits into `columns`, at least one character.
fn beginning(word: &str, columns: usize) -> &str {
    let mut taken = 0;
    let end = word.char_indices().find(|&(at, c)| {
        let width = c.width().unwrap_or(0);
        taken += width;
        at > 0 && width > 0 && taken > columns
    });
    &word[..end.map_or(word.len(), |(at, _)| at)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wrap(start: &str, text: &str, indent: usize, width: Option<usize>) -> String {
        let mut out = Vec::new();
        write((start, start.width()), text, indent, width, &mut out).expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn sentences_are_broken_at_spaces() {
        let text = "run it with sudo, or with the capabilities that it names";
        assert_eq!(wrap("what  ", text, 6, None), format!("what  {text}\n"));
        assert_eq!(
            wrap("what  ", text, 6, Some(30)),
            "what  run it with sudo, or\n      with the capabilities\n      that it names\n"
        );
        assert_eq!(wrap("", "short", 4, Some(80)), "short\n");
        let long = wrap("  ", &"x".repeat(50), 2, Some(30));
        assert_eq!(long, format!("  {}\n  {}\n", "x".repeat(28), "x".repeat(22)));
        assert_eq!(wrap("a long label ", "words", 13, Some(22)), "a long label words\n");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(text in "[a-z名 ]{0,300}", width in 40..200_usize) {
            let wrapped = wrap("  Label       ", &text, 14, Some(width));
            for line in wrapped.lines() {
                prop_assert!(line.width() <= width, "{line:?}");
            }
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            if words(&text).iter().all(|word| word.width() <= width - 14) {
                prop_assert_eq!(&words(&wrapped)[1..], &words(&text)[..], "every word is there, whole");
            }
        }

        #[test]
        fn narrow_terminal_gets_the_whole_text(text in "[a-z名\u{301} ]{0,100}", width in 0..40_usize) {
            let wrapped = wrap("  Label       ", &text, 14, Some(width));
            let letters = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(letters(&wrapped), format!("Label{}", letters(&text)));
            let broken = wrapped.lines().filter(|line| line.trim() != "Label");
            for line in broken {
                // A blank and a wide character need three columns on any terminal.
                prop_assert!(line.width() <= width.max(3) || line.starts_with("  Label"), "{line:?}");
            }
        }
    }
}
