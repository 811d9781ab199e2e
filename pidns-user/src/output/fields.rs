//! `--fields`: which columns a table has, and which members each object of a document.

use std::str::FromStr;

use serde::{Serialize, Serializer, ser::Error as _};
use serde_json::Value;

use super::{
    columns::{Cell, Column, Side},
    fit::{Leave, Room},
};
use crate::text::distance;

/// What can be chosen of one view.
pub trait Field: Copy + PartialEq + 'static {
    /// The names of all, as the command line has them.
    const NAMES: &'static [&'static str];
    /// The columns of a table where none are chosen.
    const USUAL: &'static [Self];

    /// The one of this name.
    fn of_name(name: &str) -> Option<Self>;

    /// The heading of its column.
    fn heading(self) -> &'static str;

    /// Where its text stands.
    fn side(self) -> Side;

    /// What room it takes on a terminal.
    fn room(self) -> Room;

    /// The members that hold it in JSON.
    fn members(self) -> &'static [&'static str];
}

/// An enumeration of fields: `Variant "name" "HEADING" Side ["member in JSON", …]`, which are the usual ones, and the function that
/// lists the width of each.
macro_rules! fields {
    (
        $(#[doc = $of:literal])* $vis:vis enum $enum:ident, usual $usual:tt, $room:path;
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

            fn room(self) -> $crate::output::fit::Room {
                $room(self)
            }

            fn members(self) -> &'static [&'static str] {
                match self { $(Self::$field => &$members,)* }
            }
        }
    };
}
pub(super) use fields;

/// Chosen fields: of a list like `pids,comm`, those; `+uid` adds to the usual ones, or to what stands before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields<F> {
    fields: Vec<F>,
    /// Those that the user has named: they are shown on a narrow terminal too.
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

/// The field of this name, or the error where there is none.
pub(super) fn field<F: Field>(name: &str) -> Result<F, String> {
    F::of_name(name).ok_or_else(|| {
        let nearest = F::NAMES.iter().min_by_key(|known| distance(name, known)).unwrap_or(&"");
        format!("there is no field {name:?}; did you mean {nearest}? Fields: {}", F::NAMES.join(","))
    })
}

impl<F: Field> Fields<F> {
    /// Whether this one is among them.
    pub fn has(&self, field: F) -> bool {
        self.fields.contains(&field)
    }

    pub(super) fn columns(&self) -> Vec<Column> {
        let column = |field: &F| {
            let room = field.room();
            let leave = if self.named.contains(field) { Leave::Stays } else { room.leave };
            Column { heading: field.heading(), side: field.side(), room: Room { leave, ..room } }
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

/// An object of a document, of which only the chosen members are written; all where none were chosen.
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
        /// A test's.
        enum Of, usual [A, B], room;
        /// One.
        A "a" "A" Left ["a"],
        /// Two.
        B "bee" "B" Right ["b", "c"],
        /// Three.
        C "sea" "C" Right ["d"],
    }

    fn room(_: Of) -> Room {
        Room::whole(Leave::Soon(1))
    }

    fn parse(text: &str) -> Result<Vec<Of>, String> {
        text.parse::<Fields<Of>>().map(|Fields { fields, .. }| fields)
    }

    #[test]
    fn fields_replace_the_usual_ones_or_add_to_them() {
        assert_eq!(parse("sea,a"), Ok(vec![Of::C, Of::A]));
        assert_eq!(parse("+sea"), Ok(vec![Of::A, Of::B, Of::C]));
        assert_eq!(parse("a,+sea,a"), Ok(vec![Of::A, Of::C]));
        for bad in ["", "a,,bee", "A", "+", "nope"] {
            let error = parse(bad).expect_err(bad);
            assert!(error.contains("no field") && error.contains("a,bee,sea"), "{error}");
        }
    }

    #[test]
    fn members_that_were_not_chosen_are_left_out() {
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
