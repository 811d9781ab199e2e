//! A dashboard with rows of panels, and its JSON.

use serde_json::{Value, json};

use super::panel::{Panel, datasource};

/// The tag of all dashboards. They link to each other by it.
pub(crate) const TAG: &str = "pidns-trace";

/// The version of Grafana 11's JSON. Later versions convert it.
const SCHEMA_VERSION: u32 = 39;

/// A dashboard.
pub(crate) struct Board {
    /// Its id in Grafana's addresses, which never changes.
    pub(crate) uid: &'static str,
    pub(crate) title: &'static str,
    pub(crate) description: &'static str,
    /// The NAME in `dashboards/NAME.json`.
    pub(crate) name: &'static str,
    /// Variables after the common ones: name, title, and the query for their values.
    pub(crate) variables: &'static [(&'static str, &'static str, &'static str)],
    pub(crate) rows: Vec<Row>,
}

/// Panels below a heading. They fill lines of 24 columns from left to right.
pub(crate) struct Row {
    pub(crate) heading: &'static str,
    pub(crate) panels: Vec<Panel>,
}

impl Board {
    #[cfg(test)]
    pub(crate) fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.rows.iter().flat_map(|row| &row.panels)
    }

    pub(crate) fn json(&self) -> Value {
        let mut panels = Vec::new();
        let mut y = 0;
        for row in &self.rows {
            panels.push(json!({
                "id": panels.len() + 1,
                "type": "row",
                "title": row.heading,
                "collapsed": false,
                "gridPos": { "x": 0, "y": y, "w": 24, "h": 1 },
                "panels": [],
            }));
            y += 1;
            let (mut x, mut height) = (0, 0);
            for panel in &row.panels {
                if x + panel.width > 24 {
                    (x, y, height) = (0, y + height, 0);
                }
                panels.push(panel.json(panels.len() + 1, (x, y)));
                x += panel.width;
                height = height.max(panel.height());
            }
            y += height;
        }
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": [TAG],
            "editable": false,
            "graphTooltip": 1,
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "time": { "from": "now-6h", "to": "now" },
            "timezone": "",
            "refresh": "1m",
            "links": [link()],
            "annotations": { "list": [] },
            "templating": { "list": self.templating() },
            "panels": panels,
        })
    }

    fn templating(&self) -> Vec<Value> {
        let source = json!({
            "name": "datasource",
            "label": "Prometheus",
            "type": "datasource",
            "query": "prometheus",
            "regex": "",
            "refresh": 1,
            "multi": false,
            "includeAll": false,
            "hide": 0,
        });
        let common = [
            ("job", "Job", "label_values(pidns_trace_build_info, job)"),
            ("instance", "Machine", r#"label_values(pidns_trace_build_info{job=~"$job"}, instance)"#),
        ];
        let query = |(name, label, query): &(&str, &str, &str)| {
            json!({
                "name": name,
                "label": label,
                "type": "query",
                "datasource": datasource(),
                "query": { "query": query, "refId": "Variable" },
                "regex": "",
                "refresh": 2,
                "sort": 1,
                "multi": true,
                "includeAll": true,
                "allValue": ".+",
                "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
                "hide": 0,
            })
        };
        [source].into_iter().chain(common.iter().chain(self.variables).map(query)).collect()
    }
}

/// The links to the other dashboards. They keep the time range and the selection.
fn link() -> Value {
    json!({
        "type": "dashboards",
        "title": "pidns-trace",
        "tags": [TAG],
        "asDropdown": false,
        "includeVars": true,
        "keepTime": true,
        "targetBlank": false,
        "icon": "external link",
        "tooltip": "The other dashboards of pidns-trace, for the same time and machines",
    })
}
