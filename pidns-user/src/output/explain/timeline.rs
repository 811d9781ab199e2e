//! The history, as a table like that of the live stream.

use std::io;

use jiff::ZonedDateTime;

use super::Page;
use crate::{
    event::{Body, Event},
    explanation::{Counts, Facts, Timeline},
    output::{
        columns::{self, Cell, Column, Side},
        findings,
        fit::{Cut, Omit, WidthRule},
        phrases::pids,
        rows,
        screen::Screen,
        wrap,
    },
    text::Count,
};

/// Indent of the rows.
const INDENT: &str = "  ";

const fn column(heading: &'static str, width_rule: WidthRule) -> Column {
    Column { heading, side: Side::Left, width_rule }
}

const COLUMNS: [Column; 6] = [
    column("TIME", WidthRule::from(8, 12, Cut::Fraction, Omit::Late(3))),
    column("EVENT", WidthRule::from(11, 13, Cut::End, Omit::Never)),
    column("NS", WidthRule::fixed(Omit::Late(1))),
    column("PIDS", WidthRule::from(9, 14, Cut::Middle, Omit::Never)),
    column("COMM", WidthRule::from(8, 15, Cut::End, Omit::Late(2))),
    column("DETAIL", WidthRule::from(16, 24, Cut::End, Omit::Never)),
];

pub(super) fn write(sheet: &mut Page<'_>) -> io::Result<()> {
    let explanation = sheet.explanation;
    let Some(history) = &explanation.history else {
        let hint = "the running kernel keeps none. A recording (`pidns-trace record FILE`, then --from FILE) \
                    contains it.";
        writeln!(sheet.to)?;
        return wrap::write(("History: ", 9), hint, INDENT.len(), sheet.screen.width, sheet.to);
    };
    let began = history.begins.filter(|_| history.was_there);
    let began = began.map(|(_, time)| {
        let time = ZonedDateTime::new(time, sheet.zone.clone());
        format!(", since the start of the recording at {} (it existed before)", time.strftime("%H:%M:%S%.3f"))
    });
    let counts = counts(&history.counts, &explanation.facts);
    writeln!(sheet.to)?;
    let heading = format!("History{}{counts}:", began.unwrap_or_default());
    wrap::write(("", 0), &heading, INDENT.len(), sheet.screen.width, sheet.to)?;
    let Timeline { events, left_out, .. } = history;
    // Both parts share the column widths.
    let first: Vec<Vec<Cell>> = events.first.iter().filter_map(|event| row(event, sheet)).collect();
    let last: Vec<Vec<Cell>> = events.last.iter().filter_map(|event| row(event, sheet)).collect();
    if first.is_empty() {
        return writeln!(sheet.to, "  the recording has no event about it");
    }
    let mut rows = first;
    let headings = 1;
    let gap = headings + rows.len();
    rows.extend(last);
    let mut text = Vec::new();
    let width = sheet.screen.width.map(|width| width.saturating_sub(INDENT.len()));
    columns::write(&COLUMNS, &rows, true, Screen { width, ..sheet.screen }, &mut text)?;
    for (index, line) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if index == gap && *left_out > 0 {
            writeln!(sheet.to, "  … {} omitted", Count(*left_out, "line", "lines"))?;
        }
        sheet.to.write_all(INDENT.as_bytes())?;
        sheet.to.write_all(line)?;
    }
    Ok(())
}

fn counts(counts: &Counts, facts: &Facts) -> String {
    let Counts { forks, exits, killed, reaps } = *counts;
    match facts {
        Facts::Process(_) if forks == 0 => String::new(),
        Facts::Process(_) => format!(", in which it forked {}", Count(forks, "process", "processes")),
        Facts::Namespace(_) => {
            let killed = match killed {
                0 => String::new(),
                killed => format!(" ({killed} killed with their namespace)"),
            };
            format!(
                ", in which {} there, {exits} ended{killed} and {reaps} {} reaped",
                Count(forks, "process was born", "processes were born"),
                if reaps == 1 { "was" } else { "were" }
            )
        }
    }
}

fn row(event: &Event, sheet: &Page<'_>) -> Option<Vec<Cell>> {
    let rows::Row { label, paint, ns, process, detail } = rows::row(&event.body)?;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let about = if event.exact { "" } else { " ~" };
    let time = ZonedDateTime::new(event.time, sheet.zone.clone()).strftime("%H:%M:%S%.3f");
    let held_up_by = match &event.body {
        Body::NamespaceTeardown { .. } => held_up_by(sheet),
        _ => String::new(),
    };
    Some(vec![
        Cell::from(time.to_string()),
        Cell::painted(label.to_owned(), paint),
        Cell::from(or_dash(ns.map(|(inum, _)| inum.to_string()))),
        Cell::from(or_dash(process.map(|process| pids(&process.pids)))),
        Cell::from(or_dash(process.map(|process| process.comm.for_terminal().to_string()))),
        Cell::from(format!("{detail}{held_up_by}{about}")),
    ])
}

/// The processes that held up the teardown.
fn held_up_by(sheet: &Page<'_>) -> String {
    let blockers = sheet.explanation.history.iter().flat_map(|history| &history.held_up_by);
    let blockers: Vec<String> = blockers.filter_map(|evidence| findings::blocker(&evidence.fact)).collect();
    if blockers.is_empty() { String::new() } else { format!(", held up by {}", blockers.join("; ")) }
}
