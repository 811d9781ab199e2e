//! Names and colours the results of a panel's queries.

use pidns_monitoring::{Panel, Series};
use serde_json::Value;

/// A series as it is drawn.
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) colour: &'static str,
    /// Unix times and values, without NaN and infinity.
    pub(super) points: Vec<(f64, f64)>,
}

/// Grafana's classic palette.
const PALETTE: [&str; 12] = [
    "#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#37872d", "#8ab8ff", "#e0b400",
    "#fa6400", "#a352cc", "#c4162a",
];

/// The value of a colour name in the dashboards.
pub(super) fn named_colour(name: &str) -> &'static str {
    match name {
        "green" => "#56a64b",
        "yellow" => "#e0b400",
        "orange" => "#ff780a",
        "red" => "#e02f44",
        "purple" => "#a352cc",
        _ => "#3274d9",
    }
}

/// The series of all queries, in the order of the queries.
pub(super) fn curves(panel: &Panel, results: &[Vec<Series>]) -> Vec<Curve> {
    let mut curves = Vec::new();
    for (target, series) in panel.targets.iter().zip(results) {
        for series in series {
            let name = legend(&target.legend, series);
            let palette = PALETTE[curves.len() % PALETTE.len()];
            let colour = fixed_colour(&panel.json, &name).map_or(palette, named_colour);
            let points = series.points.iter().copied().filter(|(_, value)| value.is_finite()).collect();
            curves.push(Curve { name, colour, points });
        }
    }
    curves
}

/// Fills the series' labels into the legend's template.
pub(super) fn legend(template: &str, series: &Series) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (label, behind) = after.split_once("}}").unwrap_or((after, ""));
        out.push_str(before);
        out.push_str(series.label(label.trim()));
        rest = behind;
    }
    (out + rest).trim().to_owned()
}

/// The panel's configuration for the field with this name.
pub(super) fn overridden<'a>(panel: &'a Value, name: &str, property: &str) -> Option<&'a Value> {
    let overrides = panel.pointer("/fieldConfig/overrides")?.as_array()?;
    let own =
        overrides.iter().filter(|own| own["matcher"]["id"] == "byName" && own["matcher"]["options"] == name);
    let properties = own.filter_map(|own| own["properties"].as_array()).flatten();
    properties.into_iter().find(|own| own["id"] == property).map(|own| &own["value"])
}

fn fixed_colour<'a>(panel: &'a Value, name: &str) -> Option<&'a str> {
    overridden(panel, name, "color")?["fixedColor"].as_str()
}

/// The colour that the panel's thresholds give to a value.
pub(super) fn threshold_colour(panel: &Value, value: f64) -> &'static str {
    let steps = panel.pointer("/fieldConfig/defaults/thresholds/steps").and_then(Value::as_array);
    let mut reached =
        steps.into_iter().flatten().filter(|step| step["value"].as_f64().is_none_or(|from| value >= from));
    named_colour(reached.next_back().and_then(|step| step["color"].as_str()).unwrap_or("green"))
}

/// The panel's unit.
pub(super) fn unit(panel: &Panel) -> &str {
    panel.json.pointer("/fieldConfig/defaults/unit").and_then(Value::as_str).unwrap_or("short")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_legend_contains_the_values_of_labels() {
        let labels = [("workload".to_owned(), "web".to_owned())].into();
        let series = Series { labels, points: Vec::new() };
        assert_eq!(legend("{{workload}} ({{pidns}})", &series), "web ()");
        assert_eq!(legend("created", &series), "created");
        assert_eq!(legend("{{broken", &series), "");
    }

    #[test]
    fn a_threshold_colours_from_its_value_on() {
        let steps = json!([{ "color": "green", "value": null }, { "color": "red", "value": 0.9 }]);
        let panel = json!({ "fieldConfig": { "defaults": { "thresholds": { "steps": steps } } } });
        assert_eq!(threshold_colour(&panel, 0.5), named_colour("green"));
        assert_eq!(threshold_colour(&panel, 0.9), named_colour("red"));
    }
}
