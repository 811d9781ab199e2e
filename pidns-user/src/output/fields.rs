//! `--fields`: selects the columns of a table, or the members of each object in a document.

use std::str::FromStr;

use serde::{Serialize, Serializer, ser::Error as _};
use serde_json::Value;

use super::{
    columns::{Cell, Column, Side},
    fit::{Omit, WidthRule},
};
use crate::text::{distance, is_similar};

/// The fields of one view.
pub trait Field: Copy + PartialEq + 'static {
    /// Their names on the command line.
    const NAMES: &'static [&'static str];
    /// The default columns of a table.
    const USUAL: &'static [Self];

    /// The field with this name.
    fn of_name(name: &str) -> Option<Self>;

    /// The heading of its column.
    fn heading(self) -> &'static str;

    /// Alignment of its text.
    fn side(self) -> Side;

    /// Its width on a terminal.
    fn width_rule(self) -> WidthRule;

    /// The members that hold it in JSON.
    fn members(self) -> &'static [&'static str];
}

/// Defines an enumeration of fields: `Variant "name" "HEADING" Side ["member in JSON", …]`, the default fields, and the
/// function for the width of each.
macro_rules! fields {
    (
        $(#[doc = $of:literal])* $vis:vis enum $enum:ident, usual $usual:tt, $width_rule:path;
        $($(#[doc = $doc:literal])* $field:ident $name:literal $heading:literal $side:ident $members:tt,)*
    ) => {
        $(#[doc = $of])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $enum { $($(#[doc = $doc])* $field,)* }

        impl $crate::output::fields::Field for $enum {
            const NAMES: &'static [&'static str] = &[$($name,)*];
            const USUAL: &'static [Self] = { use $enum::*; &$usual };

            fn of_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$field),)* _ => None }
            }

            fn heading(self) -> &'static str {
                match self { $(Self::$field => $heading,)* }
            }

            fn side(self) -> $crate::output::columns::Side {
                match self { $(Self::$field => $crate::output::columns::Side::$side,)* }
            }

            fn width_rule(self) -> $crate::output::fit::WidthRule {
                $width_rule(self)
            }

            fn members(self) -> &'static [&'static str] {
                match self { $(Self::$field => &$members,)* }
            }
        }
    };
}
pub(super) use fields;

/// Selected fields: `pids,comm` selects these, `+uid` adds to the default fields or to those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields<F> {
    fields: Vec<F>,
    /// Fields that the user named. They are shown on a narrow terminal too.
    named: Vec<F>,
}

impl<F: Field> Default for Fields<F> {
    fn default() -> Self {
        Self { fields: F::USUAL.to_vec(), named: Vec::new() }
    }
}

impl<F: Field> FromStr for Fields<F> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut fields = if text.starts_with('+') { F::USUAL.to_vec() } else { Vec::new() };
        let mut named = Vec::new();
        for name in text.split(',') {
            let name = name.trim().trim_start_matches('+');
            let field = field(name)?;
            named.push(field);
            if !fields.contains(&field) {
                fields.push(field);
            }
        }
        Ok(Self { fields, named })
    }
}

/// The field with this name, or an error.
pub(super) fn field<F: Field>(name: &str) -> Result<F, String> {
    F::of_name(name).ok_or_else(|| {
        let similar = F::NAMES.iter().filter(|known| is_similar(name, known));
        let nearest = similar.min_by_key(|known| distance(name, known));
        let nearest = nearest.map_or_else(|| ".".to_owned(), |nearest| format!("; did you mean {nearest}?"));
        format!("there is no field {name:?}{nearest} Fields: {}", F::NAMES.join(","))
    })
}

impl<F: Field> Fields<F> {
    /// Whether this field is selected.
    pub fn has(&self, field: F) -> bool {
        self.fields.contains(&field)
    }

    pub(super) fn columns(&self) -> Vec<Column> {
        let column = |field: &F| {
            let width_rule = field.width_rule();
            let omit = if self.named.contains(field) { Omit::Never } else { width_rule.omit };
            Column {
                heading: field.heading(),
                side: field.side(),
                width_rule: WidthRule { omit, ..width_rule },
            }
        };
        self.fields.iter().map(column).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = F> {
        self.fields.iter().copied()
    }

    pub(super) fn row(&self, cell: impl FnMut(F) -> Cell) -> Vec<Cell> {
        self.iter().map(cell).collect()
    }

    fn members(&self) -> Vec<&'static str> {
        self.fields.iter().flat_map(|field| field.members()).copied().collect()
    }
}

/// An object of which only the selected members are written; all members if none were selected.
pub(super) struct Chosen<T> {
    object: T,
    members: Option<Vec<&'static str>>,
}

impl<T> Chosen<T> {
    pub(super) fn of<F: Field>(object: T, fields: Option<&Fields<F>>) -> Self {
        Self { object, members: fields.map(Fields::members) }
    }
}

impl<T: Serialize> Serialize for Chosen<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(members) = &self.members else { return self.object.serialize(serializer) };
        let Value::Object(mut object) = serde_json::to_value(&self.object).map_err(S::Error::custom)? else {
            return Err(S::Error::custom("members can be chosen of an object only"));
        };
        object.retain(|name, _| members.contains(&name.as_str()));
        object.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fields! {
        /// Fields of a test.
        enum Of, usual [A, B], width_rule;
        /// One.
        A "a" "A" Left ["a"],
        /// Two.
        B "bee" "B" Right ["b", "c"],
        /// Three.
        C "sea" "C" Right ["d"],
    }

    fn width_rule(_: Of) -> WidthRule {
        WidthRule::fixed(Omit::Early(1))
    }

    fn parse(text: &str) -> Result<Vec<Of>, String> {
        text.parse::<Fields<Of>>().map(|Fields { fields, .. }| fields)
    }

    #[test]
    fn fields_replace_the_defaults_or_add_to_them() {
        assert_eq!(parse("sea,a"), Ok(vec![Of::C, Of::A]));
        assert_eq!(parse("+sea"), Ok(vec![Of::A, Of::B, Of::C]));
        assert_eq!(parse("a,+sea,a"), Ok(vec![Of::A, Of::C]));
        for bad in ["", "a,,bee", "A", "+", "nope"] {
            let error = parse(bad).expect_err(bad);
            assert!(error.contains("no field") && error.contains("a,bee,sea"), "{error}");
            assert!(!error.contains("did you mean"), "nothing is similar: {error}");
        }
        assert!(parse("be").expect_err("no such field").contains("did you mean bee? Fields: "));
    }

    #[test]
    fn only_chosen_members_are_written() {
        #[derive(Serialize)]
        struct Object {
            a: u32,
            b: Option<u32>,
            d: [u32; 1],
        }
        let write = |fields: Option<&str>| {
            let fields = fields.map(|text| text.parse::<Fields<Of>>().expect("fields"));
            let object = Object { a: 1, b: Some(2), d: [3] };
            serde_json::to_string(&Chosen::of(object, fields.as_ref())).expect("JSON")
        };
        assert_eq!(write(None), r#"{"a":1,"b":2,"d":[3]}"#);
        assert_eq!(write(Some("bee")), r#"{"b":2}"#);
        assert_eq!(write(Some("a,sea")), r#"{"a":1,"d":[3]}"#);
    }
}
