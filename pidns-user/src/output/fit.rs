//! How columns share the width of a terminal: which give way, how wide the others are, and how a text is shortened.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Blanks between two columns.
pub(super) const GAP: usize = 2;

/// What stands for what is left out.
const ELLIPSIS: char = '…';

/// Which part of a text goes where it is too long.
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

/// Whether a column can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leave {
    /// Before the others get narrower than is comfortable; the least number first.
    Soon(u8),
    /// When the others have no room left even at their narrowest.
    Late(u8),
    /// Never.
    Stays,
}

/// What room a column takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// No narrower than this.
    pub least: usize,
    /// Wide enough to be read with comfort.
    pub ease: usize,
    /// What goes of a text that is too long.
    pub cut: Cut,
    /// Whether it can go.
    pub leave: Leave,
}

impl Room {
    /// A column that is never shortened.
    pub const fn whole(leave: Leave) -> Self {
        Self { least: usize::MAX, ease: usize::MAX, cut: Cut::End, leave }
    }

    /// A column that can be shortened.
    pub const fn from(least: usize, ease: usize, cut: Cut, leave: Leave) -> Self {
        Self { least, ease, cut, leave }
    }
}

/// How wide each column is on a terminal of this width, of those whose texts need so much; `None`: it gives way. Where the last
/// columns do not fit at their narrowest, they are narrower than that: no line is wider than the terminal.
pub(super) fn fit(natural: &[usize], rooms: &[Room], width: usize) -> Vec<Option<usize>> {
    let mut widths: Vec<Option<usize>> = natural.iter().copied().map(Some).collect();
    let total = |widths: &[Option<usize>]| {
        let shown = widths.iter().flatten();
        shown.clone().fold(0_usize, |sum, width| sum.saturating_add(*width))
            + GAP * shown.count().saturating_sub(1)
    };
    if total(&widths) <= width {
        return widths;
    }
    let at_most = |limit: fn(&Room) -> usize, widths: &[Option<usize>]| -> Vec<Option<usize>> {
        let limited = natural.iter().zip(rooms).map(|(&natural, room)| natural.min(limit(room)));
        limited.zip(widths).map(|(limited, width)| width.map(|_| limited)).collect()
    };
    let mut go = |limit: fn(&Room) -> usize, may_go: fn(Leave) -> bool| {
        while total(&at_most(limit, &widths)) > width {
            let there = widths.iter().enumerate().filter(|(_, width)| width.is_some());
            let next = there.map(|(at, _)| at).filter(|&at| may_go(rooms[at].leave));
            let Some(next) = next.min_by_key(|&at| rooms[at].leave) else { break };
            widths[next] = None;
        }
        let limited = at_most(limit, &widths);
        (total(&limited) <= width).then_some(limited)
    };
    let comfortable = go(|room| room.ease, |leave| matches!(leave, Leave::Soon(_)));
    let fitting = comfortable
        .or_else(|| go(|room| room.least, |leave| matches!(leave, Leave::Soon(_) | Leave::Late(_))));
    let mut widths = fitting.unwrap_or_else(|| at_most(|room| room.least, &widths));
    // What is too much even so is taken from the widest, and what is left over is shared.
    while total(&widths) > width {
        let Some(widest) = widths.iter_mut().flatten().filter(|width| **width > 1).max() else { break };
        *widest -= 1;
    }
    let mut left = width.saturating_sub(total(&widths));
    while left > 0 {
        let before = left;
        // Most to the last one: it has the sentences.
        let mut share = 3;
        for ((width, &natural), room) in widths.iter_mut().zip(natural).zip(rooms).rev() {
            let Some(width) = width else { continue };
            let lacks = natural.saturating_sub(*width);
            let more = match room.cut {
                // It has all of its milliseconds, or none.
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

/// The text in at most so many columns.
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
        // A column is the ellipsis's.
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

/// "48121 → … → 1", with as many of the inner numbers as there is room for; "48121…1" where there is next to none.
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
    fn a_text_is_shortened_at_its_least_specific_end() {
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
    fn columns_go_by_importance_and_share_the_remaining_width() {
        let rooms = [
            Room::whole(Leave::Stays),
            Room::whole(Leave::Soon(1)),
            Room::from(4, 8, Cut::End, Leave::Late(1)),
            Room::from(4, 10, Cut::End, Leave::Stays),
        ];
        let natural = [5, 3, 20, 30];
        assert_eq!(fit(&natural, &rooms, 64), [Some(5), Some(3), Some(20), Some(30)]);
        assert_eq!(fit(&natural, &rooms, 36), [Some(5), Some(3), Some(9), Some(13)], "all, shortened");
        assert_eq!(fit(&natural, &rooms, 30), [Some(5), None, Some(8), Some(13)], "the first goes soon");
        assert_eq!(fit(&natural, &rooms, 18), [Some(5), None, Some(4), Some(5)], "the others at their least");
        assert_eq!(fit(&natural, &rooms, 16), [Some(5), None, None, Some(9)]);
        assert_eq!(fit(&natural, &rooms, 5), [Some(2), None, None, Some(1)], "narrower than they should be");
    }

    proptest! {
        #[test]
        fn columns_never_need_more_than_the_terminal_has(
            columns in prop::collection::vec((0..50_usize, 1..20_usize, 0..20_usize, 0..3_u8), 1..12),
            width in 40..250_usize,
        ) {
            let natural: Vec<usize> = columns.iter().map(|column| column.0).collect();
            let room = |&(_, least, more, leave): &(usize, usize, usize, u8)| {
                let leave = [Leave::Stays, Leave::Soon(1), Leave::Late(1)][usize::from(leave)];
                Room::from(least, least + more, Cut::End, leave)
            };
            let rooms: Vec<Room> = columns.iter().map(room).collect();
            let widths = fit(&natural, &rooms, width);
            let shown: Vec<usize> = widths.iter().copied().flatten().collect();
            prop_assert!(shown.iter().sum::<usize>() + GAP * shown.len().saturating_sub(1) <= width);
            for (width, natural) in widths.iter().zip(&natural) {
                prop_assert!(width.is_none_or(|width| width <= *natural));
            }
        }

        #[test]
        fn a_shortened_text_has_room(text in "[a-z→ 名.é]{0,40}", width in 0..30_usize) {
            for cut in [Cut::End, Cut::Start, Cut::Middle, Cut::Fraction] {
                prop_assert!(shorten(&text, width, cut).width() <= width, "{cut:?}");
            }
        }
    }
}
