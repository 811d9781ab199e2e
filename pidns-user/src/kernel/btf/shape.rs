//! What the 4-byte fields of each kind of type mean.

use super::kind;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Where a name begins among the strings.
    Name,
    /// Number of a type.
    Type,
    /// A size, an offset, a number.
    Plain,
}

use Word::{Name, Plain, Type};

/// How a kind of type is laid out after its name and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// What the field holds that is a size or a type.
    pub(super) word: Word,
    /// What each row holds.
    pub(super) row: &'static [Word],
    /// Whether there are as many rows as the type has members; else there is one, if rows hold anything.
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
            // What a function counts is its linkage.
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

    /// Bytes of a row.
    pub(super) fn row_len(&self) -> usize {
        4 * self.row.len()
    }

    /// Rows of a type that counts so many.
    pub(super) fn rows(&self, count: usize) -> usize {
        match (self.counted, self.row) {
            (true, _) => count,
            (false, []) => 0,
            (false, _) => 1,
        }
    }
}
