//! The JSON Schemas of docs/schema, and JSON held against them.

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use serde_json::Value;

/// The files by the name of what they describe.
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

/// One of the files.
pub(crate) fn source(name: &str) -> Value {
    let (_, text) = FILES.iter().find(|(file, _)| *file == name).expect("docs/schema has it");
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A schema, with the files that it refers to.
pub(crate) struct Schema {
    name: &'static str,
    compiled: Schemas,
    index: SchemaIndex,
}

impl Schema {
    /// Reads it. No file is opened: references lead to [`FILES`] alone.
    pub(crate) fn of(name: &'static str) -> Self {
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V2020_12);
        compiler.enable_format_assertions();
        let place = |name: &str| format!("file:///docs/schema/{name}.schema.json");
        for (file, _) in FILES {
            compiler.add_resource(&place(file), source(file)).expect("a file is added once");
        }
        let mut compiled = Schemas::new();
        let index = compiler.compile(&place(name), &mut compiled);
        let index = index.unwrap_or_else(|error| panic!("{name} is no schema: {error:#}"));
        Self { name, compiled, index }
    }

    /// What is wrong with this value; `None` where it is as the schema says.
    pub(crate) fn problem(&self, value: &Value) -> Option<String> {
        let error = self.compiled.validate(value, self.index).err()?;
        Some(format!("{}: {error:#}", self.name))
    }

    /// Fails where it is not as the schema says.
    #[track_caller]
    pub(crate) fn check(&self, value: &Value, place: &str) {
        if let Some(problem) = self.problem(value) {
            panic!("{place}: {problem}\n{value}");
        }
    }
}
