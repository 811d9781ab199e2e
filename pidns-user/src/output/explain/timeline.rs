//! What happened, in the words of the live table.

use std::io;

use jiff::ZonedDateTime;

use super::Sheet;
use crate::{
    event::Event,
    explanation::{Counts, Facts, Timeline},
    output::{
        columns::{self, Side},
        phrases::pids,
        table,
    },
    text::Count,
};

const SIDES: [Side; 6] = [Side::Left, Side::Left, Side::Left, Side::Left, Side::Left, Side::Left];

pub(super) fn write(sheet: &mut Sheet<'_>) -> io::Result<()> {
    let explanation = sheet.explanation;
    let Some(history) = &explanation.history else {
        return writeln!(
            sheet.to,
            "\nHistory: this is what the kernel still knows. A recording (`pidns-trace record FILE`, then --from FILE) \
             tells what happened, in order."
        );
    };
    let began = history.begins.filter(|_| history.was_there);
    let began = began.map(|(_, time)| {
        let time = ZonedDateTime::new(time, sheet.zone.clone());
        format!(", since the recording began at {}, when it was there already", time.strftime("%H:%M:%S%.3f"))
    });
    let counts = counts(&history.counts, &explanation.facts);
    writeln!(sheet.to, "\nHistory{}{counts}:", began.unwrap_or_default())?;
    let Timeline { events, left_out, .. } = history;
    // Both in columns of one width, so that they can be read as one.
    let first: Vec<Vec<String>> = events.first.iter().filter_map(|event| row(event, sheet)).collect();
    let last: Vec<Vec<String>> = events.last.iter().filter_map(|event| row(event, sheet)).collect();
    if first.is_empty() {
        return writeln!(sheet.to, "  nothing happened to it that the recording tells");
    }
    let mut rows = vec![["  TIME", "EVENT", "NS", "PIDS", "COMM", "DETAIL"].map(str::to_owned).to_vec()];
    rows.extend(first);
    let gap = rows.len();
    rows.extend(last);
    let mut text = Vec::new();
    columns::write(&SIDES, &rows, &mut text)?;
    for (index, line) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if index == gap && *left_out > 0 {
            writeln!(sheet.to, "  … {} left out", Count(*left_out, "line", "lines"))?;
        }
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

fn row(event: &Event, sheet: &Sheet<'_>) -> Option<Vec<String>> {
    let table::Row { label, ns, process, detail, .. } = table::row(&event.body)?;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let about = if event.exact { "" } else { " ~" };
    let time = ZonedDateTime::new(event.time, sheet.zone.clone()).strftime("%H:%M:%S%.3f");
    Some(vec![
        format!("  {time}"),
        label.to_owned(),
        or_dash(ns.map(|(inum, _)| inum.to_string())),
        or_dash(process.map(|process| pids(&process.pids))),
        or_dash(process.map(|process| process.comm.for_terminal().to_string())),
        format!("{detail}{about}"),
    ])
}
