//! A panel of a dashboard, and its JSON.

use serde_json::{Map, Value, json};

/// The label matchers of each target. Queries contain [`SELECTION`] in their place.
pub(crate) const MATCHERS: &str = r#"job=~"$job", instance=~"$instance""#;

/// The placeholder for [`MATCHERS`] in the queries of this source: `pidns_namespaces{@, state="pinned"}`.
pub(crate) const SELECTION: char = '@';

/// Grafana's units, by their ids in its JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A count.
    Count,
    /// Events a second.
    PerSecond,
    Seconds,
    /// Seconds, shown as days and hours.
    Age,
    Bytes,
    /// 0 to 1, shown as 0 to 100 %.
    Ratio,
    /// Processor cores.
    Cores,
}

impl Unit {
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Count => "short",
            Self::PerSecond => "cps",
            Self::Seconds => "s",
            Self::Age => "dtdurations",
            Self::Bytes => "bytes",
            Self::Ratio => "percentunit",
            Self::Cores => "none",
        }
    }
}

/// How a panel draws its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The newest value, in large digits.
    Stat,
    Lines,
    /// Areas on top of each other.
    Stacked,
    /// Columns on top of each other, for the number of rare events.
    Columns,
    /// One bar for each series, with its newest value.
    Bars,
    Table,
    /// The buckets of a histogram over time.
    Heatmap,
}

impl Kind {
    fn id(self) -> &'static str {
        match self {
            Self::Stat => "stat",
            Self::Lines | Self::Stacked | Self::Columns => "timeseries",
            Self::Bars => "bargauge",
            Self::Table => "table",
            Self::Heatmap => "heatmap",
        }
    }

    /// Whether it shows only the newest values, and so needs no others.
    fn is_instant(self) -> bool {
        matches!(self, Self::Stat | Self::Bars | Self::Table)
    }
}

/// A query, and the name of its result: a legend's template, or the column of a table.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) query: String,
    pub(crate) name: String,
    /// The unit of a table's column.
    unit: Option<Unit>,
}

/// A panel. [`Panel::new`] sets what every panel needs, the other functions the rest.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) kind: Kind,
    pub(crate) title: &'static str,
    pub(crate) description: &'static str,
    pub(crate) unit: Unit,
    /// The text that the panel shows without data.
    pub(crate) no_data: &'static str,
    pub(crate) targets: Vec<Target>,
    /// Columns in Grafana's grid of 24.
    pub(crate) width: u32,
    thresholds: Vec<(f64, &'static str)>,
    range: (Option<f64>, Option<f64>),
    decimals: Option<u32>,
    colours: &'static [(&'static str, &'static str)],
    /// The columns of a table that show labels: the label's name, and the heading.
    labels: &'static [(&'static str, &'static str)],
    /// The column that a table is sorted by, largest first.
    sort_by: Option<&'static str>,
}

impl Panel {
    pub(crate) fn new(kind: Kind, title: &'static str, unit: Unit, no_data: &'static str) -> Self {
        Self {
            kind,
            title,
            description: "",
            unit,
            no_data,
            targets: Vec::new(),
            width: 12,
            thresholds: Vec::new(),
            range: (None, None),
            decimals: None,
            colours: &[],
            labels: &[],
            sort_by: None,
        }
    }

    pub(crate) fn describe(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// Adds a query. Its lines may be indented like this source.
    pub(crate) fn query(self, name: &str, query: &str) -> Self {
        self.add(name, query, None)
    }

    /// Adds a query that fills a table's column, which has its own unit.
    pub(crate) fn column(self, name: &str, unit: Unit, query: &str) -> Self {
        self.add(name, query, Some(unit))
    }

    fn add(mut self, name: &str, query: &str, unit: Option<Unit>) -> Self {
        let query = query.split_whitespace().collect::<Vec<_>>().join(" ").replace(SELECTION, MATCHERS);
        self.targets.push(Target { query, name: name.to_owned(), unit });
        self
    }

    pub(crate) fn width(mut self, width: u32) -> Self {
        self.width = width;
        self
    }

    /// The colour from each value on. Below the first it is green.
    pub(crate) fn thresholds(mut self, thresholds: &[(f64, &'static str)]) -> Self {
        self.thresholds = thresholds.to_vec();
        self
    }

    pub(crate) fn min(mut self, min: f64) -> Self {
        self.range.0 = Some(min);
        self
    }

    pub(crate) fn max(mut self, max: f64) -> Self {
        self.range.1 = Some(max);
        self
    }

    pub(crate) fn decimals(mut self, decimals: u32) -> Self {
        self.decimals = Some(decimals);
        self
    }

    /// The colour of each series, by its name.
    pub(crate) fn colours(mut self, colours: &'static [(&'static str, &'static str)]) -> Self {
        self.colours = colours;
        self
    }

    pub(crate) fn labels(mut self, labels: &'static [(&'static str, &'static str)]) -> Self {
        self.labels = labels;
        self
    }

    pub(crate) fn sort_by(mut self, column: &'static str) -> Self {
        self.sort_by = Some(column);
        self
    }

    /// The height in rows of Grafana's grid.
    pub(crate) fn height(&self) -> u32 {
        if self.kind == Kind::Stat { 4 } else { 8 }
    }

    pub(crate) fn json(&self, id: usize, (x, y): (u32, u32)) -> Value {
        let targets: Vec<Value> =
            (0..).zip(&self.targets).map(|(at, target)| self.target(at, target)).collect();
        let mut panel = json!({
            "id": id,
            "type": self.kind.id(),
            "title": self.title,
            "description": self.description,
            "datasource": datasource(),
            "gridPos": { "x": x, "y": y, "w": self.width, "h": self.height() },
            "targets": targets,
            "fieldConfig": { "defaults": self.defaults(), "overrides": self.overrides() },
            "options": self.options(),
        });
        if matches!(self.kind, Kind::Columns | Kind::Heatmap) {
            // $__rate_interval is at least one scrape longer than the step. With short steps, an event would appear
            // in several columns.
            panel["interval"] = "1m".into();
        }
        if self.kind == Kind::Table {
            panel["transformations"] = self.transformations();
        }
        panel
    }

    fn target(&self, at: u8, target: &Target) -> Value {
        let instant = self.kind.is_instant();
        let format = match self.kind {
            Kind::Table => "table",
            Kind::Heatmap => "heatmap",
            _ => "time_series",
        };
        json!({
            "refId": ref_id(at),
            "datasource": datasource(),
            "editorMode": "code",
            "expr": target.query,
            "format": format,
            "instant": instant,
            "range": !instant,
            "legendFormat": if self.kind == Kind::Table { "__auto" } else { &target.name },
        })
    }

    fn defaults(&self) -> Value {
        let mut defaults = Map::new();
        defaults.insert("unit".to_owned(), self.unit.id().into());
        defaults.insert("noValue".to_owned(), self.no_data.into());
        defaults.insert("mappings".to_owned(), json!([]));
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                defaults.insert(name.to_owned(), value);
            }
        };
        put("min", self.range.0.map(Value::from));
        put("max", self.range.1.map(Value::from));
        put("decimals", self.decimals.map(Value::from));
        let steps: Vec<Value> = [json!({ "color": "green", "value": null })]
            .into_iter()
            .chain(self.thresholds.iter().map(|(value, color)| json!({ "color": color, "value": value })))
            .collect();
        put("thresholds", Some(json!({ "mode": "absolute", "steps": steps })));
        let by_threshold = matches!(self.kind, Kind::Stat | Kind::Bars | Kind::Table);
        let mode = if by_threshold { "thresholds" } else { "palette-classic" };
        put("color", (self.kind != Kind::Heatmap).then(|| json!({ "mode": mode })));
        put("custom", self.custom());
        Value::Object(defaults)
    }

    /// The configuration of each field that is specific to this kind of panel.
    fn custom(&self) -> Option<Value> {
        match self.kind {
            Kind::Lines | Kind::Stacked | Kind::Columns => {
                let columns = self.kind == Kind::Columns;
                let stacked = columns || self.kind == Kind::Stacked;
                Some(json!({
                    "drawStyle": if columns { "bars" } else { "line" },
                    "lineInterpolation": "linear",
                    "lineWidth": 1,
                    "fillOpacity": if stacked { 60 } else { 8 },
                    "gradientMode": "none",
                    "showPoints": "auto",
                    "pointSize": 4,
                    "spanNulls": false,
                    "stacking": { "group": "A", "mode": if stacked { "normal" } else { "none" } },
                    "thresholdsStyle": { "mode": "off" },
                }))
            }
            Kind::Table => Some(json!({
                "align": "auto",
                "cellOptions": { "type": "auto" },
                "filterable": false,
                "inspect": false,
            })),
            Kind::Heatmap => Some(json!({ "scaleDistribution": { "type": "linear" } })),
            Kind::Stat | Kind::Bars => None,
        }
    }

    fn overrides(&self) -> Vec<Value> {
        let by_name = |name: &str, id: &str, value: Value| {
            json!({
                "matcher": { "id": "byName", "options": name },
                "properties": [{ "id": id, "value": value }],
            })
        };
        let fixed = |(name, colour): &(&str, &str)| {
            by_name(name, "color", json!({ "mode": "fixed", "fixedColor": colour }))
        };
        let unit = |target: &Target| target.unit.map(|unit| by_name(&target.name, "unit", unit.id().into()));
        self.colours.iter().map(fixed).chain(self.targets.iter().filter_map(unit)).collect()
    }

    fn options(&self) -> Value {
        let reduce = json!({ "calcs": ["lastNotNull"], "fields": "", "values": false });
        match self.kind {
            Kind::Stat => json!({
                "colorMode": "value",
                "graphMode": "none",
                "justifyMode": "auto",
                "orientation": "auto",
                "percentChangeColorMode": "standard",
                "reduceOptions": reduce,
                "showPercentChange": false,
                "textMode": "auto",
                "wideLayout": true,
            }),
            Kind::Lines | Kind::Stacked | Kind::Columns => json!({
                "legend": { "calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": true },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
            Kind::Bars => json!({
                "displayMode": "basic",
                "legend": { "calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": false },
                "maxVizHeight": 300,
                "minVizHeight": 14,
                "minVizWidth": 8,
                "namePlacement": "auto",
                "orientation": "horizontal",
                "reduceOptions": reduce,
                "showUnfilled": true,
                "sizing": "auto",
                "valueMode": "color",
            }),
            Kind::Table => {
                let sort: Vec<Value> = self
                    .sort_by
                    .iter()
                    .map(|column| json!({ "desc": true, "displayName": column }))
                    .collect();
                json!({ "cellHeight": "sm", "frameIndex": 0, "showHeader": true, "sortBy": sort })
            }
            Kind::Heatmap => json!({
                "calculate": false,
                "cellGap": 1,
                "color": {
                    "exponent": 0.5,
                    "fill": "dark-orange",
                    "mode": "scheme",
                    "reverse": false,
                    "scale": "exponential",
                    "scheme": "Oranges",
                    "steps": 64,
                },
                "exemplars": { "color": "rgba(255,0,255,0.7)" },
                "filterValues": { "le": 1e-9 },
                "legend": { "show": true },
                "rowsFrame": { "layout": "auto" },
                "showValue": "never",
                "tooltip": { "mode": "single", "showColorScale": false, "yHistogram": true },
                "yAxis": { "axisPlacement": "left", "reverse": false, "unit": self.unit.id() },
            }),
        }
    }

    /// Joins the results of all queries into one table, with a column for each listed label and each query.
    fn transformations(&self) -> Value {
        let single = self.targets.len() == 1;
        let value = |at: u8| if single { "Value".to_owned() } else { format!("Value #{}", ref_id(at)) };
        let columns: Vec<(String, String)> = (self.labels.iter())
            .map(|(label, heading)| ((*label).to_owned(), (*heading).to_owned()))
            .chain((0..).zip(&self.targets).map(|(at, target)| (value(at), target.name.clone())))
            .collect();
        let order: Map<String, Value> =
            (0..).zip(&columns).map(|(at, (name, _)): (u32, _)| (name.clone(), at.into())).collect();
        let names: Map<String, Value> =
            columns.iter().map(|(name, heading)| (name.clone(), heading.as_str().into())).collect();
        let shown: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        json!([
            { "id": "merge", "options": {} },
            { "id": "filterFieldsByName", "options": { "include": { "names": shown } } },
            {
                "id": "organize",
                "options": { "excludeByName": {}, "includeByName": {}, "indexByName": order, "renameByName": names },
            },
        ])
    }
}

/// The data source that the dashboard's variable selects.
pub(crate) fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// A, B, C …
fn ref_id(at: u8) -> String {
    char::from(b'A' + at).to_string()
}
