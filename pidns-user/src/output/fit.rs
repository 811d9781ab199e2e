//! Fits columns into the width of a terminal: selects the columns to omit, the width of the others, and shortens texts.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Blanks between two columns.
pub(super) const GAP: usize = 2;

/// Replaces omitted text.
const ELLIPSIS: char = '…';

/// The part of a long text that is omitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Its end.
    End,
    /// Its beginning: the branches of a tree, before the number.
    Start,
    /// Numbers in the middle of "48121 → 7 → 1": the outermost and the innermost matter most.
    Middle,
    /// A time without its milliseconds.
    Fraction,
}

/// Whether a column may be omitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Omit {
    /// Omitted before the others get narrower than comfortable; the lowest number first.
    Early(u8),
    /// Omitted when the others do not fit even at their narrowest; the lowest number first.
    Late(u8),
    /// Never.
    Never,
}

/// The width of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WidthRule {
    /// Its smallest width.
    pub min: usize,
    /// Its comfortable width.
    pub comfortable: usize,
    /// The part of a long text that is omitted.
    pub cut: Cut,
    /// Whether it may be omitted.
    pub omit: Omit,
}

impl WidthRule {
    /// A column that is never shortened.
    pub const fn fixed(omit: Omit) -> Self {
        Self { min: usize::MAX, comfortable: usize::MAX, cut: Cut::End, omit }
    }

    /// A column that can be shortened.
    pub const fn from(min: usize, comfortable: usize, cut: Cut, omit: Omit) -> Self {
        Self { min, comfortable, cut, omit }
    }
}

/// The width of each column on a terminal of this width; `natural` are the widths of their texts. `None`: omit the
/// column. If the last columns do not fit at their smallest width, they get even less, because no line is wider than
/// the terminal.
pub(super) fn fit(natural: &[usize], rules: &[WidthRule], width: usize) -> Vec<Option<usize>> {
    let mut widths: Vec<Option<usize>> = natural.iter().copied().map(Some).collect();
    let total = |widths: &[Option<usize>]| {
        let shown = widths.iter().flatten();
        shown.clone().fold(0_usize, |sum, width| sum.saturating_add(*width))
            + GAP * shown.count().saturating_sub(1)
    };
    if total(&widths) <= width {
        return widths;
    }
    let at_most = |limit: fn(&WidthRule) -> usize, widths: &[Option<usize>]| -> Vec<Option<usize>> {
        let limited = natural.iter().zip(rules).map(|(&natural, rule)| natural.min(limit(rule)));
        limited.zip(widths).map(|(limited, width)| width.map(|_| limited)).collect()
    };
    let mut go = |limit: fn(&WidthRule) -> usize, may_go: fn(Omit) -> bool| {
        while total(&at_most(limit, &widths)) > width {
            let there = widths.iter().enumerate().filter(|(_, width)| width.is_some());
            let next = there.map(|(at, _)| at).filter(|&at| may_go(rules[at].omit));
            let Some(next) = next.min_by_key(|&at| rules[at].omit) else { break };
            widths[next] = None;
        }
        let limited = at_most(limit, &widths);
        (total(&limited) <= width).then_some(limited)
    };
    let comfortable = go(|rule| rule.comfortable, |omit| matches!(omit, Omit::Early(_)));
    let fitting =
        comfortable.or_else(|| go(|rule| rule.min, |omit| matches!(omit, Omit::Early(_) | Omit::Late(_))));
    let mut widths = fitting.unwrap_or_else(|| at_most(|rule| rule.min, &widths));
    // Take the excess from the widest columns, then share the remaining width.
    while total(&widths) > width {
        let Some(widest) = widths.iter_mut().flatten().filter(|width| **width > 1).max() else { break };
        *widest -= 1;
    }
    let mut left = width.saturating_sub(total(&widths));
    while left > 0 {
        let before = left;
        // The last column gets most: it contains the sentences.
        let mut share = 3;
        for ((width, &natural), rule) in widths.iter_mut().zip(natural).zip(rules).rev() {
            let Some(width) = width else { continue };
            let lacks = natural.saturating_sub(*width);
            let more = match rule.cut {
                // Show all milliseconds or none.
                Cut::Fraction if lacks > left => 0,
                Cut::Fraction => lacks,
                _ => share.min(lacks).min(left),
            };
            *width += more;
            left -= more;
            share = 1;
        }
        if left == before {
            break;
        }
    }
    widths
}

/// The text in at most `width` columns.
pub fn shorten(text: &str, width: usize, cut: Cut) -> Cow<'_, str> {
    if text.len() <= width || text.width() <= width {
        return Cow::Borrowed(text);
    }
    match cut {
        Cut::Fraction => match text.split_once('.') {
            Some((whole, _)) if whole.len() <= width => Cow::Borrowed(whole),
            _ => Cow::Owned(without_end(text, width)),
        },
        Cut::End => Cow::Owned(without_end(text, width)),
        Cut::Start => {
            let tail = text.char_indices().rev().scan(0, |taken, (at, c)| {
                *taken += c.width().unwrap_or(0);
                (*taken < width).then_some(at)
            });
            let from = tail.last().unwrap_or(text.len());
            Cow::Owned(if width == 0 { String::new() } else { format!("{ELLIPSIS}{}", &text[from..]) })
        }
        Cut::Middle => Cow::Owned(without_middle(text, width).unwrap_or_else(|| without_end(text, width))),
    }
}

fn without_end(text: &str, width: usize) -> String {
    let mut taken = 0;
    let mut kept = String::with_capacity(text.len().min(width * 4));
    for c in text.chars() {
        taken += c.width().unwrap_or(0);
        // The ellipsis needs one column.
        if taken >= width {
            break;
        }
        kept.push(c);
    }
    kept.truncate(kept.trim_end().len());
    if width > 0 {
        kept.push(ELLIPSIS);
    }
    kept
}

/// "48121 → … → 1", with as many inner numbers as fit; "48121…1" if hardly anything fits.
fn without_middle(text: &str, width: usize) -> Option<String> {
    const ARROW: &str = " → ";
    let parts: Vec<&str> = text.split(ARROW).collect();
    let [first, .., last] = parts[..] else { return None };
    (2..parts.len())
        .map(|from| format!("{first}{ARROW}{ELLIPSIS}{ARROW}{}", parts[from..].join(ARROW)))
        .chain([
            format!("{first} {ELLIPSIS} {last}"),
            format!("{first}{ELLIPSIS}{last}"),
            format!("{first}{ELLIPSIS}"),
        ])
        .find(|shortened| shortened.width() <= width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_shortened_at_its_least_specific_end() {
        let short = |text, width, cut| shorten(text, width, cut).into_owned();
        assert_eq!(short("docker/web", 10, Cut::End), "docker/web");
        assert_eq!(short("docker/webserver", 10, Cut::End), "docker/we…");
        assert_eq!(short("by runc via", 8, Cut::End), "by runc…", "no blank before it");
        assert_eq!(short("│ │ └─4026532847", 12, Cut::Start), "…─4026532847");
        assert_eq!(short("48121 → 7 → 5 → 1", 13, Cut::Middle), "48121 → … → 1");
        assert_eq!(short("48121 → 7 → 5 → 1", 17, Cut::Middle), "48121 → 7 → 5 → 1");
        assert_eq!(short("17263 → 5 → 1", 10, Cut::Middle), "17263 … 1");
        assert_eq!(short("4048121 → 1", 9, Cut::Middle), "4048121…1");
        assert_eq!(short("4048121 → 4048122", 9, Cut::Middle), "4048121…");
        assert_eq!(short("14:03:07.120", 8, Cut::Fraction), "14:03:07");
        assert_eq!(short("名前名前", 5, Cut::End), "名前…", "two columns each");
        assert_eq!(short("abc", 1, Cut::Start), "…");
        assert_eq!(short("abc", 0, Cut::End), "");
    }

    #[test]
    fn columns_are_omitted_by_importance_and_share_the_remaining_width() {
        let rules = [
            WidthRule::fixed(Omit::Never),
            WidthRule::fixed(Omit::Early(1)),
            WidthRule::from(4, 8, Cut::End, Omit::Late(1)),
            WidthRule::from(4, 10, Cut::End, Omit::Never),
        ];
        let natural = [5, 3, 20, 30];
        assert_eq!(fit(&natural, &rules, 64), [Some(5), Some(3), Some(20), Some(30)]);
        assert_eq!(fit(&natural, &rules, 36), [Some(5), Some(3), Some(9), Some(13)], "all, shortened");
        assert_eq!(fit(&natural, &rules, 30), [Some(5), None, Some(8), Some(13)], "the early one is omitted");
        assert_eq!(
            fit(&natural, &rules, 18),
            [Some(5), None, Some(4), Some(5)],
            "the others at their narrowest"
        );
        assert_eq!(fit(&natural, &rules, 16), [Some(5), None, None, Some(9)]);
        assert_eq!(fit(&natural, &rules, 5), [Some(2), None, None, Some(1)], "narrower than they should be");
    }

    proptest! {
        #[test]
        fn columns_never_exceed_the_terminal(
            columns in prop::collection::vec((0..50_usize, 1..20_usize, 0..20_usize, 0..3_u8), 1..12),
            width in 40..250_usize,
        ) {
            let natural: Vec<usize> = columns.iter().map(|column| column.0).collect();
            let rule = |&(_, min, more, omit): &(usize, usize, usize, u8)| {
                let omit = [Omit::Never, Omit::Early(1), Omit::Late(1)][usize::from(omit)];
                WidthRule::from(min, min + more, Cut::End, omit)
            };
            let rules: Vec<WidthRule> = columns.iter().map(rule).collect();
            let widths = fit(&natural, &rules, width);
            let shown: Vec<usize> = widths.iter().copied().flatten().collect();
            prop_assert!(shown.iter().sum::<usize>() + GAP * shown.len().saturating_sub(1) <= width);
            for (width, natural) in widths.iter().zip(&natural) {
                prop_assert!(width.is_none_or(|width| width <= *natural));
            }
        }

        #[test]
        fn shortened_text_fits(text in "[a-z→ 名.é]{0,40}", width in 0..30_usize) {
            for cut in [Cut::End, Cut::Start, Cut::Middle, Cut::Fraction] {
                prop_assert!(shorten(&text, width, cut).width() <= width, "{cut:?}");
            }
        }
    }
}
