//! Draws lines, areas and columns over time.

use pidns_monitoring::{Panel, Range, Series};
use serde_json::Value;

use super::{
    data::{self, Curve},
    scale,
    svg::{Anchor, Font, GREY, Rect, Svg, width_of},
};

const SMALL: Font = Font::new(11.0, GREY);
/// Width for the numbers on the left.
const LEFT: f64 = 62.0;

/// Maps times and values to positions in the picture.
struct Axes {
    area: Rect,
    range: Range,
    low: f64,
    high: f64,
}

impl Axes {
    fn x(&self, time: f64) -> f64 {
        self.area.x + self.area.w * (time - self.range.start) / (self.range.end - self.range.start)
    }

    fn y(&self, value: f64) -> f64 {
        self.area.y + self.area.h * (1.0 - (value - self.low) / (self.high - self.low))
    }
}

/// Draws the curves. False if there is nothing to draw.
pub(super) fn draw(svg: &mut Svg, panel: &Panel, results: &[Vec<Series>], range: &Range, room: Rect) -> bool {
    let mut curves = data::curves(panel, results);
    curves.retain(|curve| !curve.points.is_empty());
    if curves.is_empty() {
        return false;
    }
    let custom = |name: &str| {
        panel.json.pointer(&format!("/fieldConfig/defaults/custom/{name}")).and_then(Value::as_str)
    };
    let is_stacked = custom("stacking/mode") == Some("normal");
    let is_columns = custom("drawStyle") == Some("bars");
    let layers = if is_stacked { stack(&curves) } else { Vec::new() };
    let shown = layers.iter().map(|layer| &layer.top).chain(curves.iter().map(|curve| &curve.points));
    let highest = shown.flatten().map(|(_, value)| *value).fold(f64::MIN, f64::max);
    let lowest = curves.iter().flat_map(|curve| &curve.points).map(|(_, value)| *value).fold(0.0, f64::min);
    let limit =
        |name: &str| panel.json.pointer(&format!("/fieldConfig/defaults/{name}")).and_then(Value::as_f64);
    let marks = scale::marks(limit("min").unwrap_or(lowest), limit("max").unwrap_or(highest));
    let legend_height = legend(svg, &curves, room);
    let area = room.inside([LEFT, 4.0, 6.0, 20.0 + legend_height]);
    let (low, high) = (marks[0], marks[marks.len() - 1]);
    let axes = Axes { area, range: *range, low, high };
    grid(svg, &axes, &marks, data::unit(panel));
    for (at, curve) in curves.iter().enumerate() {
        match layers.get(at) {
            Some(layer) if is_columns => columns(svg, &axes, layer, curve.colour),
            Some(layer) => {
                let mut outline = points(&axes, &layer.top);
                outline.extend(points(&axes, &layer.bottom).into_iter().rev());
                svg.path(&outline, "none", Some((curve.colour, 0.55)));
                svg.path(&points(&axes, &layer.top), curve.colour, None);
            }
            None => {
                for piece in pieces(&curve.points, range.step) {
                    svg.path(&points(&axes, piece), curve.colour, None);
                }
            }
        }
    }
    true
}

fn points(axes: &Axes, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    points.iter().map(|(time, value)| (axes.x(*time), axes.y(*value))).collect()
}

/// Splits the points at gaps.
fn pieces(points: &[(f64, f64)], step: f64) -> impl Iterator<Item = &[(f64, f64)]> {
    points.chunk_by(move |(before, _), (after, _)| after - before < 1.5 * step)
}

/// A curve on top of the previous ones.
struct Layer {
    bottom: Vec<(f64, f64)>,
    top: Vec<(f64, f64)>,
}

/// Stacks the curves at every point in time that one of them has. A missing value counts as 0.
fn stack(curves: &[Curve]) -> Vec<Layer> {
    let mut times: Vec<f64> =
        curves.iter().flat_map(|curve| curve.points.iter().map(|(time, _)| *time)).collect();
    times.sort_by(f64::total_cmp);
    times.dedup();
    let mut bottom: Vec<(f64, f64)> = times.iter().map(|time| (*time, 0.0)).collect();
    let mut layers = Vec::new();
    for curve in curves {
        let mut own = curve.points.iter().peekable();
        let top: Vec<(f64, f64)> = (bottom.iter())
            .map(|(time, below)| {
                while own.next_if(|(at, _)| at < time).is_some() {}
                (*time, below + own.next_if(|(at, _)| at == time).map_or(0.0, |(_, value)| *value))
            })
            .collect();
        layers.push(Layer { bottom, top: top.clone() });
        bottom = top;
    }
    layers
}

fn columns(svg: &mut Svg, axes: &Axes, layer: &Layer, colour: &str) {
    // A column shows the step that ends at its time.
    let width = axes.area.w * axes.range.step / (axes.range.end - axes.range.start);
    let column = |((time, top), (_, bottom)): (&(f64, f64), &(f64, f64))| {
        let (y, base) = (axes.y(*top), axes.y(*bottom));
        let x = (axes.x(*time) - width).max(axes.area.x);
        let width = (axes.x(*time) - x - 1.0).max(0.5);
        (top > bottom).then_some(Rect { x, y, w: width, h: base - y })
    };
    let columns: Vec<Rect> = layer.top.iter().zip(&layer.bottom).filter_map(column).collect();
    svg.rects(&columns, colour);
}

fn grid(svg: &mut Svg, axes: &Axes, marks: &[f64], unit: &str) {
    let Rect { x, y, w, h } = axes.area;
    for mark in marks {
        let at = axes.y(*mark);
        svg.line((x, at), (x + w, at), "#e3e5e7");
        svg.text((x - 6.0, at + 4.0), &scale::number(*mark, unit), SMALL.at(Anchor::End), LEFT);
    }
    time_axis(svg, axes.area, &axes.range);
    svg.line((x, y + h), (x + w, y + h), "#c4c9ce");
}

/// Draws times below an area.
pub(super) fn time_axis(svg: &mut Svg, area: Rect, range: &Range) {
    let count = (area.w / 110.0).floor().clamp(2.0, 8.0);
    let mut at = 0.0;
    while at <= count {
        let time = range.start + (range.end - range.start) * at / count;
        let anchor = if at == 0.0 {
            Anchor::Start
        } else if at == count {
            Anchor::End
        } else {
            Anchor::Middle
        };
        let place = (area.x + area.w * at / count, area.y + area.h + 15.0);
        svg.text(place, &scale::clock(time, range), SMALL.at(anchor), 60.0);
        at += 1.0;
    }
}

/// Draws names below a panel in at most two lines. Returns their height.
fn legend(svg: &mut Svg, curves: &[Curve], room: Rect) -> f64 {
    const LINE: f64 = 16.0;
    let mut lines: Vec<Vec<(f64, &Curve)>> = vec![Vec::new()];
    let mut x = 0.0;
    for curve in curves {
        let width = (width_of(&curve.name, SMALL.size) + 26.0).min(room.w);
        if x + width > room.w && x > 0.0 {
            if lines.len() == 2 {
                break;
            }
            lines.push(Vec::new());
            x = 0.0;
        }
        if let Some(line) = lines.last_mut() {
            line.push((x, curve));
        }
        x += width;
    }
    let height = LINE * f64::from(u32::try_from(lines.len()).unwrap_or(2));
    let mut y = room.y + room.h - height + LINE - 4.0;
    for line in &lines {
        for (x, curve) in line {
            svg.rect(Rect { x: room.x + x, y: y - 5.0, w: 12.0, h: 3.0 }, curve.colour, "none");
            svg.text((room.x + x + 16.0, y), &curve.name, SMALL, room.w - x);
        }
        y += LINE;
    }
    height
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(f64, f64)]) -> Curve {
        Curve { name: String::new(), colour: "#000", points: points.to_vec() }
    }

    #[test]
    fn stacked_curves_treat_missing_values_as_zero() {
        let layers = stack(&[curve(&[(1.0, 1.0), (2.0, 1.0)]), curve(&[(2.0, 3.0), (3.0, 5.0)])]);
        assert_eq!(layers[0].top, [(1.0, 1.0), (2.0, 1.0), (3.0, 0.0)]);
        assert_eq!(layers[1].bottom, layers[0].top);
        assert_eq!(layers[1].top, [(1.0, 1.0), (2.0, 4.0), (3.0, 5.0)]);
    }

    #[test]
    fn a_line_is_broken_at_missing_values() {
        let points = [(1.0, 0.0), (2.0, 0.0), (5.0, 0.0)];
        assert_eq!(pieces(&points, 1.0).map(<[_]>::len).collect::<Vec<_>>(), [2, 1]);
    }
}
