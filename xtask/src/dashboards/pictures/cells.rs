//! Draws the newest value, bars, tables and heat maps.

use std::collections::BTreeMap;

use pidns_monitoring::{Panel, Range, Series};
use serde_json::Value;

use super::{
    curves, data, scale,
    svg::{Anchor, DARK, Font, GREY, Rect, Svg},
};

const SMALL: Font = Font::new(11.5, DARK);

/// Draws the newest value in large digits. False if there is none.
pub(super) fn stat(svg: &mut Svg, panel: &Panel, results: &[Vec<Series>], room: Rect) -> bool {
    let Some(value) = results.iter().flatten().find_map(Series::last) else { return false };
    let colour = data::threshold_colour(&panel.json, value);
    let font = Font { size: 34.0, colour, bold: true, anchor: Anchor::Middle };
    let text = scale::number(value, data::unit(panel));
    svg.text((room.x + room.w / 2.0, room.y + room.h / 2.0 + 12.0), &text, font, room.w);
    true
}

/// Draws one bar for each series, the longest first.
pub(super) fn bars(svg: &mut Svg, panel: &Panel, results: &[Vec<Series>], room: Rect) -> bool {
    let mut curves = data::curves(panel, results);
    curves.retain(|curve| !curve.points.is_empty());
    let value = |curve: &data::Curve| curve.points.last().map_or(0.0, |(_, value)| *value);
    curves.sort_by(|a, b| value(b).total_cmp(&value(a)));
    if curves.is_empty() {
        return false;
    }
    let largest = panel.json.pointer("/fieldConfig/defaults/max").and_then(Value::as_f64);
    let largest = largest.unwrap_or_else(|| curves.iter().map(value).fold(f64::MIN_POSITIVE, f64::max));
    let (names, numbers) = (room.w * 0.42, 60.0);
    let height = (room.h / f64::from(u32::try_from(curves.len()).unwrap_or(1))).min(26.0);
    let mut y = room.y;
    for curve in curves.iter().take_while(|_| height >= 10.0) {
        let share = (value(curve) / largest).clamp(0.0, 1.0);
        let bar = Rect { x: room.x + names, y: y + 4.0, w: room.w - names - numbers, h: height - 8.0 };
        let colour = data::threshold_colour(&panel.json, value(curve));
        svg.text((room.x, y + height / 2.0 + 4.0), &curve.name, SMALL, names - 8.0);
        svg.rect(bar, "#e9ebed", "none");
        svg.rect(Rect { w: bar.w * share, ..bar }, colour, "none");
        let place = (room.x + room.w, y + height / 2.0 + 4.0);
        svg.text(place, &scale::number(value(curve), data::unit(panel)), SMALL.at(Anchor::End), numbers);
        y += height;
    }
    true
}

/// A column of a table: heading, cells as text, and whether they are numbers.
struct Column {
    heading: String,
    cells: Vec<String>,
    is_number: bool,
}

/// The rows and columns that Grafana's transformations make from the results.
fn columns(panel: &Panel, results: &[Vec<Series>]) -> Vec<Column> {
    let names = |at: &str| panel.json.pointer(at).cloned().unwrap_or_default();
    let (shown, headings) =
        (names("/transformations/1/options/include/names"), names("/transformations/2/options/renameByName"));
    let shown: Vec<&str> = shown.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let labels: Vec<&str> = shown.iter().copied().filter(|name| !name.starts_with("Value")).collect();
    // Series with the same values of the shown labels share a row.
    let mut rows: BTreeMap<Vec<&str>, Vec<Option<f64>>> = BTreeMap::new();
    for (at, series) in results.iter().enumerate().flat_map(|(at, all)| all.iter().map(move |one| (at, one)))
    {
        let key = labels.iter().map(|label| series.label(label)).collect();
        rows.entry(key).or_insert_with(|| vec![None; results.len()])[at] = series.last();
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    let sort_by = panel.json.pointer("/options/sortBy/0/displayName").and_then(Value::as_str);
    let headings_of_values: Vec<String> = (panel.targets.iter())
        .map(|target| {
            let name =
                if results.len() == 1 { "Value".to_owned() } else { format!("Value #{}", target.ref_id) };
            headings[&name].as_str().unwrap_or(&name).to_owned()
        })
        .collect();
    if let Some(by) = headings_of_values.iter().position(|heading| Some(heading.as_str()) == sort_by) {
        let value = |values: &[Option<f64>]| values[by].unwrap_or(f64::MIN);
        rows.sort_by(|(_, a), (_, b)| value(b).total_cmp(&value(a)));
    }
    let of_label = |(at, label): (usize, &&str)| Column {
        heading: headings[*label].as_str().unwrap_or(label).to_owned(),
        cells: rows.iter().map(|(key, _)| key[at].to_owned()).collect(),
        is_number: false,
    };
    let of_value = |(at, heading): (usize, &String)| {
        let unit = data::overridden(&panel.json, heading, "unit").and_then(Value::as_str);
        let unit = unit.unwrap_or_else(|| data::unit(panel));
        let text = |value: Option<f64>| value.map_or_else(String::new, |value| scale::number(value, unit));
        Column {
            heading: heading.clone(),
            cells: rows.iter().map(|(_, values)| text(values[at])).collect(),
            is_number: true,
        }
    };
    let labels = labels.iter().enumerate().map(of_label);
    labels.chain(headings_of_values.iter().enumerate().map(of_value)).collect()
}

/// Draws a table with as many rows as fit.
pub(super) fn table(svg: &mut Svg, panel: &Panel, results: &[Vec<Series>], room: Rect) -> bool {
    const LINE: f64 = 23.0;
    let columns = columns(panel, results);
    if results.iter().all(Vec::is_empty) {
        return false;
    }
    let longest = |column: &Column| {
        let lengths =
            column.cells.iter().chain([&column.heading]).map(|cell| cell.chars().count().clamp(5, 30));
        f64::from(u32::try_from(lengths.max().unwrap_or(5)).unwrap_or(30))
    };
    let all: f64 = columns.iter().map(longest).sum();
    let mut x = room.x;
    for column in &columns {
        let width = room.w * longest(column) / all;
        let (edge, anchor) =
            if column.is_number { (x + width - 12.0, Anchor::End) } else { (x, Anchor::Start) };
        svg.text((edge, room.y + 14.0), &column.heading, SMALL.bold().at(anchor), width - 12.0);
        let mut y = room.y + LINE;
        for cell in &column.cells {
            if y + LINE > room.y + room.h + 6.0 {
                break;
            }
            svg.text((edge, y + 15.0), cell, SMALL.at(anchor), width - 12.0);
            y += LINE;
        }
        x += width;
    }
    let rows = columns.iter().map(|column| column.cells.len()).max().unwrap_or(0);
    for row in 0..=u32::try_from(rows).unwrap_or(0) {
        let y = room.y + LINE * f64::from(row + 1) - 2.0;
        if y < room.y + room.h {
            svg.line((room.x, y), (room.x + room.w, y), "#eceef0");
        }
    }
    true
}

/// Draws the buckets of a histogram over time. A darker cell has more observations.
pub(super) fn heatmap(
    svg: &mut Svg,
    panel: &Panel,
    results: &[Vec<Series>],
    range: &Range,
    room: Rect,
) -> bool {
    let bound = |series: &Series| series.label("le").parse::<f64>().unwrap_or(f64::INFINITY);
    let mut buckets: Vec<&Series> = results.iter().flatten().collect();
    buckets.sort_by(|a, b| bound(a).total_cmp(&bound(b)));
    // Prometheus's buckets are cumulative: each contains those below it.
    let mut below: BTreeMap<u64, f64> = BTreeMap::new();
    let mut cells = Vec::new();
    for (row, bucket) in (0u32..).zip(&buckets) {
        for (time, count) in bucket.points.iter().filter(|(_, count)| count.is_finite()) {
            let before = below.insert(time.to_bits(), *count).unwrap_or(0.0);
            if count - before > 1e-9 {
                cells.push((row, *time, count - before));
            }
        }
    }
    if cells.is_empty() {
        return false;
    }
    let most = cells.iter().map(|(_, _, count)| *count).fold(f64::MIN, f64::max);
    let area = room.inside([62.0, 4.0, 6.0, 22.0]);
    let height = area.h / f64::from(u32::try_from(buckets.len()).unwrap_or(1));
    let width = area.w * range.step / (range.end - range.start + range.step);
    for (row, bucket) in (0u32..).zip(&buckets) {
        let y = area.y + area.h - height * f64::from(row + 1);
        let bound = bound(bucket);
        let text =
            if bound.is_finite() { scale::number(bound, data::unit(panel)) } else { "more".to_owned() };
        if height >= 10.0 || row % 2 == 0 {
            svg.text(
                (area.x - 6.0, y + height / 2.0 + 4.0),
                &text,
                Font::new(11.0, GREY).at(Anchor::End),
                60.0,
            );
        }
        svg.line((area.x, y + height), (area.x + area.w, y + height), "#eceef0");
    }
    // Use few shades to keep the picture small.
    const SHADES: u32 = 8;
    for level in 1..=SHADES {
        let share = f64::from(level) / f64::from(SHADES);
        let is_of_level =
            |count: f64| ((count / most).sqrt() * f64::from(SHADES)).ceil() / f64::from(SHADES) == share;
        let rects: Vec<Rect> = (cells.iter().filter(|(_, _, count)| is_of_level(*count)))
            .map(|(row, time, _)| Rect {
                x: area.x + (time - range.start) / range.step * width,
                y: area.y + area.h - height * f64::from(row + 1),
                w: (width - 1.0).max(0.5),
                h: height - 1.0,
            })
            .collect();
        svg.rects(&rects, &shade(share));
    }
    curves::time_axis(svg, area, range);
    true
}

/// A colour from light to dark orange, for 0 to 1.
fn shade(share: f64) -> String {
    let mix = |from: f64, to: f64| from + (to - from) * share.clamp(0.0, 1.0);
    format!("rgb({:.0},{:.0},{:.0})", mix(255.0, 166.0), mix(235.0, 54.0), mix(214.0, 3.0))
}
