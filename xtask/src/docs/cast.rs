//! Makes the animation in README.md: a terminal that runs commands on a recording, as an SVG with CSS animations.
//!
//! The commands really run. The delay between two lines is the difference of their times, within bounds.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, bail};

use super::examples::Runner;

/// The file of the animation.
const FILE: &str = "docs/pictures/demo.svg";

/// A command as the animation shows it, and the command that prints the same from a recording.
struct Scene {
    typed: &'static str,
    run: &'static str,
    /// Whether the lines appear one after the other, as in a live stream.
    is_live: bool,
}

const SCENES: [Scene; 3] = [
    Scene {
        typed: "sudo pidns-trace -e 'namespace.*,init.*,fork.failed'",
        run: "pidns-trace replay - <web.ndjson -e 'namespace.*,init.*,fork.failed'",
        is_live: true,
    },
    Scene {
        typed: "pidns-trace ps web --from web.ndjson --at +10s     # in the recording, before it was killed",
        run: "pidns-trace ps web --from web.ndjson --at +10s",
        is_live: false,
    },
    Scene {
        typed: "pidns-trace findings --from web.ndjson             # what went wrong?",
        run: "pidns-trace findings --from web.ndjson",
        is_live: false,
    },
];

const CHARACTER: f64 = 7.225;
const LINE: f64 = 17.0;
const MARGIN: f64 = 14.0;
const TITLE: f64 = 28.0;
/// Durations in seconds: for each typed character, before the output, between two lines (at least, at most), and
/// after a scene.
const TYPING: f64 = 0.04;
const BEFORE_OUTPUT: f64 = 0.5;
const BETWEEN_LINES: (f64, f64) = (0.12, 1.1);
const AFTER_SCENE: f64 = 5.0;
/// Wider lines are wrapped, and continue under the last column of the table.
const COLUMNS: usize = 138;

/// A piece of text with its position and the time when it appears.
struct Text {
    column: usize,
    row: usize,
    text: String,
    colour: &'static str,
    from: f64,
    until: f64,
    is_last_scene: bool,
}

pub(super) fn write(root: &Path, runner: &Runner) -> Result<()> {
    let (path, svg) = (root.join(FILE), make(runner)?);
    if fs::read_to_string(&path).ok().as_ref() != Some(&svg) {
        fs::create_dir_all(path.parent().context("the file has no directory")?)?;
        fs::write(&path, svg).with_context(|| format!("cannot write {FILE}"))?;
        eprintln!("wrote {FILE}");
    }
    Ok(())
}

pub(super) fn check(root: &Path, runner: &Runner) -> Result<()> {
    let there = fs::read_to_string(root.join(FILE)).with_context(|| format!("cannot read {FILE}"))?;
    if there != make(runner)? {
        bail!("{FILE} does not show what the commands print: run `cargo xtask docs write`");
    }
    Ok(())
}

fn make(runner: &Runner) -> Result<String> {
    let mut outputs = Vec::new();
    for scene in &SCENES {
        outputs.push(runner.run(scene.run)?);
    }
    let scenes: Vec<_> =
        SCENES.iter().zip(&outputs).map(|(scene, output)| (scene, output.as_str())).collect();
    Ok(draw(&scenes))
}

fn draw(scenes: &[(&Scene, &str)]) -> String {
    let (mut texts, mut now, mut rows) = (Vec::new(), 0.5, 0);
    for (index, (scene, output)) in scenes.iter().enumerate() {
        let first = texts.len();
        let is_last_scene = index + 1 == scenes.len();
        let text = |column, row, text: String, colour, from| Text {
            column,
            row,
            text,
            colour,
            from,
            until: 0.0,
            is_last_scene,
        };
        texts.push(text(0, 0, "$".to_owned(), "#7ee787", now));
        // Type word by word: it looks as good as by character, at a fifth of the size.
        let mut column = 2;
        for word in scene.typed.split(' ') {
            now += TYPING * (word.len() + 1) as f64;
            texts.push(text(column, 0, word.to_owned(), "#ffffff", now));
            column += word.len() + 1;
        }
        now += BEFORE_OUTPUT;
        let mut time_before = None;
        let last_column = output.lines().next().and_then(|heading| heading.find("DETAIL")).unwrap_or(4);
        let mut row = 1;
        for line in output.lines() {
            if scene.is_live {
                let time = seconds(line);
                let apart = time.zip(time_before).map_or(0.0, |(time, before): (f64, f64)| time - before);
                now += apart.clamp(BETWEEN_LINES.0, BETWEEN_LINES.1);
                time_before = time;
            }
            let colour = colour(line, row == 1);
            for (part, piece) in wrap(line, last_column).into_iter().enumerate() {
                texts.push(text(if part == 0 { 0 } else { last_column }, row, piece, colour, now));
                row += 1;
            }
            rows = rows.max(row);
        }
        now += AFTER_SCENE;
        for text in &mut texts[first..] {
            text.until = now;
        }
    }
    picture(&texts, rows, now)
}

fn picture(texts: &[Text], rows: usize, duration: f64) -> String {
    let width = MARGIN * 2.0 + CHARACTER * COLUMNS as f64;
    let height = TITLE + MARGIN * 2.0 + LINE * rows as f64;
    let (mut styles, mut body) = (String::new(), String::new());
    for (index, text) in texts.iter().enumerate() {
        let (from, until) = (text.from / duration * 100.0, text.until / duration * 100.0);
        let end = if until < 99.99 { format!("{until:.2}%{{opacity:0}}") } else { String::new() };
        writeln!(styles, "@keyframes k{index}{{0%{{opacity:0}}{from:.2}%{{opacity:1}}{end}}}")
            .expect("memory");
        writeln!(
            body,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{}\" class=\"{}\" style=\"animation-name:k{index}\">{}</text>",
            MARGIN + CHARACTER * text.column as f64,
            TITLE + MARGIN + LINE * (text.row as f64 + 0.75),
            text.colour,
            if text.is_last_scene { "last" } else { "text" },
            escape(&text.text)
        )
        .expect("memory");
    }
    format!(
        "<!-- Made by `cargo xtask docs write` (xtask/src/docs/cast.rs) from pidns-user/tests/recordings/web.ndjson. -->\n\
         <svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" role=\"img\">\n\
         <title>pidns-trace shows a container whose PID 1 leaves zombies, ignores SIGTERM and is killed</title>\n\
         <style>\n\
         text{{font:12px 'DejaVu Sans Mono',Menlo,Consolas,monospace;white-space:pre;opacity:0;\
         animation-duration:{duration:.2}s;animation-timing-function:step-end;animation-iteration-count:infinite}}\n\
         @media (prefers-reduced-motion:reduce){{text{{animation-duration:0s}}text.last{{opacity:1}}}}\n\
         {styles}</style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#0d1117\"/>\n\
         <circle cx=\"18\" cy=\"16\" r=\"5\" fill=\"#ff5f56\"/><circle cx=\"36\" cy=\"16\" r=\"5\" fill=\"#ffbd2e\"/>\
         <circle cx=\"54\" cy=\"16\" r=\"5\" fill=\"#27c93f\"/>\n\
         {body}</svg>\n"
    )
}

/// Reads the time of day at the start of a line, in seconds.
fn seconds(line: &str) -> Option<f64> {
    let (hours, rest) = line.get(..12)?.split_once(':')?;
    let (minutes, seconds) = rest.split_once(':')?;
    Some(
        hours.parse::<f64>().ok()? * 3600.0
            + minutes.parse::<f64>().ok()? * 60.0
            + seconds.parse::<f64>().ok()?,
    )
}

fn colour(line: &str, is_first: bool) -> &'static str {
    const RED: &str = "#ff7b72";
    const YELLOW: &str = "#e3b341";
    let has = |words: &[&str]| words.iter().any(|word| line.contains(word));
    if has(&["SIGKILL", "was killed", "critical"]) {
        RED
    } else if has(&["finding", "warning", "zombie", "ignored", " Z "]) {
        YELLOW
    } else if is_first {
        "#8b949e"
    } else {
        "#c9d1d9"
    }
}

/// Splits the line into pieces that fit. The first starts at the left edge, the others at `indent`.
fn wrap(line: &str, indent: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for word in line.split_inclusive(' ') {
        let room = if pieces.len() == 1 { COLUMNS } else { COLUMNS - indent };
        let piece = pieces.last().map_or(0, |piece| piece.chars().count());
        if piece > 0 && piece + word.trim_end().chars().count() > room {
            pieces.push(String::new());
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push_str(word);
        }
    }
    pieces
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_appear_with_the_delays_of_their_times() {
        let scene = Scene { typed: "a", run: "", is_live: true };
        let svg = draw(&[(&scene, "10:00:00.000  one\n10:00:00.500  two\n10:09:00.000  <three>\n")]);
        // 0.5 at the start, 0.08 for typing, 0.5 before the output; then 0.12, 0.5 and 1.1 between lines, and 5 at
        // the end.
        let duration = 0.5 + 0.08 + 0.5 + 0.12 + 0.5 + 1.1 + 5.0;
        assert!(svg.contains(&format!("animation-duration:{duration:.2}s")), "{svg}");
        for (index, from) in [(2, 1.2), (3, 1.7), (4, 2.8)] {
            let percent = from / duration * 100.0;
            assert!(
                svg.contains(&format!("@keyframes k{index}{{0%{{opacity:0}}{percent:.2}%{{opacity:1}}}}")),
                "{svg}"
            );
        }
        assert!(svg.contains("&lt;three&gt;"), "{svg}");
    }

    #[test]
    fn a_scene_disappears_when_the_next_one_begins() {
        let scene = Scene { typed: "a", run: "", is_live: false };
        let svg = draw(&[(&scene, "one\n"), (&scene, "two\n")]);
        assert_eq!(svg.matches("{opacity:0}}").count(), 3, "{svg}");
        assert_eq!(svg.matches("class=\"last\"").count(), 3, "{svg}");
    }

    #[test]
    fn long_lines_are_wrapped() {
        let line = "→ ".repeat(COLUMNS);
        let pieces = wrap(&line, COLUMNS - 8);
        assert_eq!(pieces.concat(), line);
        assert_eq!(pieces[0].trim_end().chars().count(), COLUMNS - 1);
        assert!(pieces[1..].iter().all(|piece| piece.trim_end().chars().count() <= 8), "{pieces:?}");
        assert_eq!(wrap("a  b", 4), ["a  b"]);
    }

    #[test]
    fn times_are_read_at_the_beginning_of_a_line() {
        assert_eq!(seconds("01:01:01.500  exec"), Some(3661.5));
        assert_eq!(seconds("TIME          EVENT"), None);
        assert_eq!(seconds(""), None);
    }
}
