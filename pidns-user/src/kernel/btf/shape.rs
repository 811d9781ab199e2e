//! Layout of each kind of BTF type: the meaning of its 4-byte fields.

use super::kind;

/// The content of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Offset of a name in the string section.
    Name,
    /// Number of a type.
    Type,
    /// A size, an offset, a number.
    Plain,
}

use Word::{Name, Plain, Type};

/// Layout of a kind of type: one field after its name and kind, then the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Content of that field: a size or a type.
    pub(super) word: Word,
    /// Content of the fields of each row.
    pub(super) row: &'static [Word],
    /// Whether there is a row for each member. Otherwise there is one row, or none if `row` is empty.
    counted: bool,
}

impl Shape {
    pub(super) fn of(kind: u32) -> Option<Self> {
        let one = |word, row| Self { word, row, counted: false };
        let counted = |word, row| Self { word, row, counted: true };
        Some(match kind {
            kind::INT => one(Plain, &[Plain]),
            kind::ARRAY => one(Plain, &[Type, Type, Plain]),
            kind::STRUCT | kind::UNION => counted(Plain, &[Name, Type, Plain]),
            kind::ENUM => counted(Plain, &[Name, Plain]),
            kind::ENUM64 => counted(Plain, &[Name, Plain, Plain]),
            kind::FUNC_PROTO => counted(Type, &[Name, Type]),
            kind::DATASEC => counted(Plain, &[Type, Plain, Plain]),
            kind::VAR | kind::DECL_TAG => one(Type, &[Plain]),
            kind::FORWARD | kind::FLOAT => one(Plain, &[]),
            // A function stores its linkage as its count.
            kind::PTR
            | kind::TYPEDEF
            | kind::VOLATILE
            | kind::CONST
            | kind::RESTRICT
            | kind::FUNC
            | kind::TYPE_TAG => one(Type, &[]),
            _ => return None,
        })
    }

    /// Length of a row in bytes.
    pub(super) fn row_len(&self) -> usize {
        4 * self.row.len()
    }

    /// Number of rows of a type with this count.
    pub(super) fn rows(&self, count: usize) -> usize {
        match (self.counted, self.row) {
            (true, _) => count,
            (false, []) => 0,
            (false, _) => 1,
        }
    }
}
