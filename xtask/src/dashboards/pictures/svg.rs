//! Writes SVG text.

use std::fmt::Write as _;

/// An unfinished picture.
pub(super) struct Svg {
    width: f64,
    body: String,
}

/// The position of a text relative to its point.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// The style of a text.
#[derive(Clone, Copy)]
pub(super) struct Font {
    pub(super) size: f64,
    pub(super) colour: &'static str,
    pub(super) bold: bool,
    pub(super) anchor: Anchor,
}

pub(super) const DARK: &str = "#24292e";
pub(super) const GREY: &str = "#6e7681";

impl Font {
    pub(super) const fn new(size: f64, colour: &'static str) -> Self {
        Self { size, colour, bold: false, anchor: Anchor::Start }
    }

    pub(super) const fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    pub(super) const fn at(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }
}

/// A rectangle: its upper left corner, width and height.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rect {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) w: f64,
    pub(super) h: f64,
}

impl Rect {
    /// The rectangle inside margins: left, top, right, bottom.
    pub(super) fn inside(self, [left, top, right, bottom]: [f64; 4]) -> Self {
        Self {
            x: self.x + left,
            y: self.y + top,
            w: (self.w - left - right).max(1.0),
            h: (self.h - top - bottom).max(1.0),
        }
    }
}

impl Svg {
    pub(super) fn new(width: f64) -> Self {
        Self { width, body: String::new() }
    }

    pub(super) fn rect(&mut self, Rect { x, y, w, h }: Rect, fill: &str, stroke: &str) {
        let _ = writeln!(
            self.body,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{w:.1}" height="{h:.1}" fill="{fill}" stroke="{stroke}"/>"#
        );
    }

    pub(super) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), stroke: &str) {
        let _ = writeln!(
            self.body,
            r#"<path d="M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}" stroke="{stroke}" stroke-width="1"/>"#
        );
    }

    /// Draws a line through points. With a fill, the path is closed.
    pub(super) fn path(&mut self, points: &[(f64, f64)], stroke: &str, fill: Option<(&str, f64)>) {
        let Some((first, rest)) = points.split_first() else { return };
        let mut path = format!("M{:.1} {:.1}", first.0, first.1);
        for (x, y) in rest {
            let _ = write!(path, "L{x:.1} {y:.1}");
        }
        let (fill, opacity, close) =
            fill.map_or(("none", 1.0, ""), |(colour, opacity)| (colour, opacity, "Z"));
        let _ = writeln!(
            self.body,
            r#"<path d="{path}{close}" stroke="{stroke}" stroke-width="1.4" stroke-linejoin="round" fill="{fill}" fill-opacity="{opacity}"/>"#
        );
    }

    /// Draws rectangles of one colour.
    pub(super) fn rects(&mut self, rects: &[Rect], fill: &str) {
        let mut path = String::new();
        for Rect { x, y, w, h } in rects {
            let _ = write!(path, "M{x:.1} {y:.1}h{w:.1}v{h:.1}h-{w:.1}z");
        }
        if !path.is_empty() {
            let _ = writeln!(self.body, r#"<path d="{path}" fill="{fill}"/>"#);
        }
    }

    /// Writes one line of text, cut off if it is wider than `room`.
    pub(super) fn text(&mut self, (x, y): (f64, f64), text: &str, font: Font, room: f64) {
        let anchor = match font.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.body,
            r#"<text x="{x:.1}" y="{y:.1}" font-size="{}" fill="{}" font-weight="{}" text-anchor="{anchor}">{}</text>"#,
            font.size,
            font.colour,
            if font.bold { 600 } else { 400 },
            escape(&cut(text, font.size, room))
        );
    }

    /// The whole picture.
    pub(super) fn finish(self, height: f64, title: &str) -> String {
        let Self { width, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"Inter, 'DejaVu Sans', Helvetica, Arial, sans-serif\">\n\
             <title>{}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#f4f5f5\"/>\n{body}</svg>\n",
            escape(title)
        )
    }
}

/// The approximate width of a text, because fonts differ.
pub(super) fn width_of(text: &str, size: f64) -> f64 {
    f64::from(u32::try_from(text.chars().count()).unwrap_or(u32::MAX)) * size * 0.58
}

fn cut(text: &str, size: f64, room: f64) -> String {
    if width_of(text, size) <= room {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        if width_of(&kept, size) + 2.0 * size * 0.58 > room {
            break;
        }
        kept.push(c);
    }
    kept + "…"
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML allows no other control characters.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_names_are_escaped_and_cut() {
        let mut svg = Svg::new(100.0);
        svg.text((0.0, 0.0), "<script>\u{7}&\"", Font::new(10.0, DARK), 1000.0);
        svg.text((0.0, 0.0), "a very long name", Font::new(10.0, DARK), 40.0);
        let text = svg.finish(10.0, "a < b");
        assert!(text.contains(">&lt;script&gt; &amp;&quot;</text>"), "{text}");
        assert!(text.contains(">a ver…</text>") || text.contains(">a ve…</text>"), "{text}");
        assert!(text.contains("<title>a &lt; b</title>"), "{text}");
    }
}
