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
        // From standard input, names are not read ahead: the lines look as in a live stream.
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

/// The width of a character, in pixels.
const CHARACTER_WIDTH: f64 = 7.225;
/// The height of a line, in pixels.
const LINE_HEIGHT: f64 = 17.0;
/// The margin on each side of the text, in pixels.
const MARGIN: f64 = 14.0;
/// The height of the title bar, in pixels.
const TITLE_HEIGHT: f64 = 28.0;
/// The time before the first command, in seconds.
const BEFORE_FIRST_SCENE: f64 = 0.5;
/// The time for each typed character, in seconds.
const TYPING: f64 = 0.04;
/// The time between a command and its output, in seconds.
const BEFORE_OUTPUT: f64 = 0.5;
/// The shortest and the longest time between two lines of a live stream, in seconds.
const BETWEEN_LINES: (f64, f64) = (0.12, 1.1);
/// The time after a scene, in seconds.
const AFTER_SCENE: f64 = 5.0;
/// Wider lines are wrapped, and continue under the last column of the table.
const COLUMNS: usize = 138;
/// The column at which wrapped lines continue if the output is no table.
const INDENT: usize = 4;

/// A piece of text with its position and the times when it appears and disappears.
struct Text {
    column: usize,
    row: usize,
    text: String,
    colour: &'static str,
    from: f64,
    until: f64,
    is_in_last_scene: bool,
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
    let existing = fs::read_to_string(root.join(FILE)).with_context(|| format!("cannot read {FILE}"))?;
    if existing != make(runner)? {
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
    let (mut texts, mut now, mut rows) = (Vec::new(), BEFORE_FIRST_SCENE, 0);
    for (index, (scene, output)) in scenes.iter().enumerate() {
        let first = texts.len();
        let is_in_last_scene = index + 1 == scenes.len();
        let make_text = |column, row, text: String, colour, from| Text {
            column,
            row,
            text,
            colour,
            from,
            until: 0.0,
            is_in_last_scene,
        };
        texts.push(make_text(0, 0, "$".to_owned(), "#7ee787", now));
        // Type word by word: it looks as good as by character, at a fifth of the size.
        let mut column = 2;
        for word in scene.typed.split(' ') {
            now += TYPING * (word.len() + 1) as f64;
            texts.push(make_text(column, 0, word.to_owned(), "#ffffff", now));
            column += word.len() + 1;
        }
        now += BEFORE_OUTPUT;
        let mut time_before = None;
        let last_column = output.lines().next().and_then(|heading| heading.find("DETAIL")).unwrap_or(INDENT);
        let mut row = 1;
        for line in output.lines() {
            if scene.is_live {
                let time = seconds(line);
                let gap = time.zip(time_before).map_or(0.0, |(time, before): (f64, f64)| time - before);
                now += gap.clamp(BETWEEN_LINES.0, BETWEEN_LINES.1);
                time_before = time;
            }
            let colour = colour(line, row == 1);
            for (part, piece) in wrap(line, last_column).into_iter().enumerate() {
                texts.push(make_text(if part == 0 { 0 } else { last_column }, row, piece, colour, now));
                row += 1;
            }
            rows = rows.max(row);
        }
        now += AFTER_SCENE;
        for text in &mut texts[first..] {
            text.until = now;
        }
    }
    svg(&texts, rows, now)
}

fn svg(texts: &[Text], rows: usize, duration: f64) -> String {
    let width = MARGIN * 2.0 + CHARACTER_WIDTH * COLUMNS as f64;
    let height = TITLE_HEIGHT + MARGIN * 2.0 + LINE_HEIGHT * rows as f64;
    let (mut styles, mut body) = (String::new(), String::new());
    for (index, text) in texts.iter().enumerate() {
        let [from_percent, until_percent] = [text.from, text.until].map(|time| time / duration * 100.0);
        // The last scene stays until the animation restarts.
        let (end, class) = if text.is_in_last_scene {
            (String::new(), " class=\"last\"")
        } else {
            (format!("{until_percent:.2}%{{opacity:0}}"), "")
        };
        writeln!(styles, "@keyframes k{index}{{0%{{opacity:0}}{from_percent:.2}%{{opacity:1}}{end}}}")
            .expect("writing to a String cannot fail");
        writeln!(
            body,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{}\"{class} style=\"animation-name:k{index}\">{}</text>",
            MARGIN + CHARACTER_WIDTH * text.column as f64,
            TITLE_HEIGHT + MARGIN + LINE_HEIGHT * (text.row as f64 + 0.75),
            text.colour,
            escape(&text.text)
        )
        .expect("writing to a String cannot fail");
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

/// The colour of a line, by the words in it.
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
        let used = pieces.last().map_or(0, |piece| piece.chars().count());
        if used > 0 && used + word.trim_end().chars().count() > room {
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
    fn the_delay_between_two_lines_is_the_difference_of_their_times_within_bounds() {
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
        let begin_of_second = percentages(&svg, 3)[1];
        for index in 0..3 {
            assert_eq!(percentages(&svg, index)[2..], [begin_of_second], "{svg}");
        }
        for index in 3..6 {
            assert_eq!(percentages(&svg, index)[2..], [""; 0], "the last scene stays: {svg}");
        }
        assert_eq!(svg.matches("class=\"last\"").count(), 3, "{svg}");
    }

    /// The percentages of the keyframes of a text: when it is hidden, appears and disappears.
    fn percentages(svg: &str, index: usize) -> Vec<&str> {
        let name = format!("@keyframes k{index}{{");
        let keyframes =
            svg.lines().find_map(|line| line.strip_prefix(&*name)).expect("the text has keyframes");
        keyframes.split('}').filter_map(|keyframe| Some(keyframe.split_once('%')?.0)).collect()
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
