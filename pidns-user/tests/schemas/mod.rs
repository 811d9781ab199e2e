//! Checks JSON against the JSON Schemas in docs/schema.

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use serde_json::Value;

/// The schema files, by the name of what they describe.
pub(crate) const FILES: &[(&str, &str)] = &[
    ("check", include_str!("../../../docs/schema/check.schema.json")),
    ("events", include_str!("../../../docs/schema/events.schema.json")),
    ("explain", include_str!("../../../docs/schema/explain.schema.json")),
    ("finding", include_str!("../../../docs/schema/finding.schema.json")),
    ("findings", include_str!("../../../docs/schema/findings.schema.json")),
    ("objects", include_str!("../../../docs/schema/objects.schema.json")),
    ("pid", include_str!("../../../docs/schema/pid.schema.json")),
    ("ps", include_str!("../../../docs/schema/ps.schema.json")),
    ("tree", include_str!("../../../docs/schema/tree.schema.json")),
];

/// The JSON of one file.
pub(crate) fn source(name: &str) -> Value {
    let (_, text) = FILES.iter().find(|(file, _)| *file == name).expect("docs/schema has this file");
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A compiled schema with the files that it refers to.
pub(crate) struct Schema {
    name: &'static str,
    compiled: Schemas,
    index: SchemaIndex,
}

impl Schema {
    /// Reads a schema. References may only lead to [`FILES`], so no file is opened.
    pub(crate) fn of(name: &'static str) -> Self {
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V2020_12);
        compiler.enable_format_assertions();
        let place = |name: &str| format!("file:///docs/schema/{name}.schema.json");
        for (file, _) in FILES {
            compiler.add_resource(&place(file), source(file)).expect("each file is added once");
        }
        let mut compiled = Schemas::new();
        let index = compiler.compile(&place(name), &mut compiled);
        let index = index.unwrap_or_else(|error| panic!("{name} is not a schema: {error:#}"));
        Self { name, compiled, index }
    }

    /// The fault of this value. `None` if it matches the schema.
    pub(crate) fn problem(&self, value: &Value) -> Option<String> {
        let error = self.compiled.validate(value, self.index).err()?;
        Some(format!("{}: {error:#}", self.name))
    }

    /// Fails if the value does not match the schema.
    #[track_caller]
    pub(crate) fn check(&self, value: &Value, place: &str) {
        if let Some(problem) = self.problem(value) {
            panic!("{place}: {problem}\n{value}");
        }
    }
}
