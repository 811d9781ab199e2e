//! The reasons why bytes are not a valid record.

use core::fmt;

/// Why the bytes are not a valid record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// There are too few bytes.
    Truncated {
        /// Bytes needed.
        needed: usize,
        /// Bytes found.
        found: usize,
    },
    /// The size in the header is not the number of bytes.
    Size {
        /// The size in the header.
        stated: usize,
        /// Bytes found.
        found: usize,
    },
    /// The number has no meaning in its enumeration.
    Unknown {
        /// The field.
        field: &'static str,
        /// Its value.
        number: u32,
    },
    /// A field contradicts the others or is out of range.
    Inconsistent {
        /// The field.
        field: &'static str,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { needed, found } => {
                write!(f, "record is cut short: it needs {needed} bytes and has {found}")
            }
            Self::Size { stated, found } => {
                write!(f, "record has {found} bytes, but its header states {stated}")
            }
            Self::Unknown { field, number } => write!(f, "{field} {number} is unknown"),
            Self::Inconsistent { field } => write!(f, "{field} contradicts the rest of the record"),
        }
    }
}

impl core::error::Error for DecodeError {}
