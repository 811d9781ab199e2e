//! A reader of BTF, the kernel's own description of its types (Documentation/bpf/btf.rst).
//!
//! It reads only what this program needs: offsets of fields, sizes, argument counts of tracepoints and members of
//! enumerations. One pass over the 5 MB of a kernel takes milliseconds. General libraries build every type; they need
//! ten times as long, and more memory.

use std::collections::HashMap;

mod complete;
#[cfg(any(test, feature = "test-tools"))]
pub mod draft;
mod file;
mod project;
mod prototype;
mod shape;
mod wanted;

use shape::{Shape, Word};
use wanted::WantedNames;

pub use complete::{Unusable, parse_complete};
pub use file::File;
pub use prototype::{Prototype, Value};

/// Path of the running kernel's BTF.
pub const PATH: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
const HEADER_LEN: usize = 24;
const TYPE_LEN: usize = 12;
const MEMBER_LEN: usize = 12;
/// Deepest chain of typedefs, qualifiers and anonymous members that the reader follows.
const MAX_DEPTH: usize = 32;

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FORWARD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Why BTF could not be read, or lacks the requested type.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// The data is not BTF.
    #[error("this is not BTF: {0}")]
    Foreign(&'static str),
    /// The data ends within a part that its header announces.
    #[error("BTF is cut short: {what} at byte {at} goes beyond its {len} bytes")]
    Truncated {
        /// The part that was being read.
        what: &'static str,
        /// Offset of the part, in bytes.
        at: usize,
        /// Length of the data, in bytes.
        len: usize,
    },
    /// This reader does not know this kind of type, so it cannot find the next one.
    #[error("BTF type {id} has the unknown kind {kind}")]
    UnknownKind {
        /// Number of the type.
        id: u32,
        /// Its kind.
        kind: u32,
    },
    /// No structure, union, typedef or enumeration has this name.
    #[error("this kernel's BTF has no type {0}")]
    NoType(String),
    /// The structure has no such field.
    #[error("this kernel's BTF has no field {field} in {structure}")]
    NoField {
        /// Name of the structure.
        structure: String,
        /// Name of the field, with dots between nested fields.
        field: String,
    },
    /// The field does not start at a byte boundary.
    #[error("{structure}.{field} is a bit field")]
    BitField {
        /// Name of the structure.
        structure: String,
        /// Name of the field.
        field: String,
    },
    /// A type refers to a string or type that does not exist.
    #[error(
        "BTF type {id} refers to {what} {at}, and there are {len} {unit}: this is a module's BTF, which is useless \
         without its kernel's, or it is damaged", unit = if *what == "string" { "bytes of strings" } else { "types" }
    )]
    Outside {
        /// Number of the type.
        id: u32,
        /// Kind of the target: a string or a type.
        what: &'static str,
        /// Offset of the string, or number of the type.
        at: u32,
        /// Number of bytes of strings, or number of types.
        len: usize,
    },
    /// The type has an unexpected form.
    #[error("BTF describes {0} in an unexpected way")]
    Unexpected(String),
}

/// BTF, indexed by name.
#[derive(Debug)]
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Offset of each type in `types`; type 0 is void.
    starts: Vec<u32>,
    /// Type numbers by kind and name. Without a list of wanted names: structures, unions, enumerations, and the
    /// typedefs of tracepoints and lock guards. Otherwise the wanted names, functions included.
    names: HashMap<(u32, &'a [u8]), u32>,
}

/// The fixed part of a type.
#[derive(Clone, Copy)]
struct Type {
    /// Offset of the data after the fixed part.
    rest: usize,
    name: u32,
    kind: u32,
    count: usize,
    /// For structures: the offsets of members also contain the sizes of bit fields.
    kind_flag: bool,
    size_or_type: u32,
}

fn u32_at(bytes: &[u8], at: usize, what: &'static str) -> Result<u32, BtfError> {
    match bytes.get(at..at.saturating_add(4)) {
        Some(&[a, b, c, d]) => Ok(u32::from_ne_bytes([a, b, c, d])),
        _ => Err(BtfError::Truncated { what, at, len: bytes.len() }),
    }
}

/// Adds offsets. Offsets in damaged data may overflow.
fn add(a: u32, b: u32, of: &str) -> Result<u32, BtfError> {
    a.checked_add(b).ok_or_else(|| BtfError::Unexpected(of.to_owned()))
}

/// Builds a BTF file from these sections.
fn assemble(types: &[u8], strings: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + types.len() + strings.len());
    bytes.extend_from_slice(&MAGIC.to_ne_bytes());
    bytes.extend_from_slice(&[VERSION, 0]);
    for word in [HEADER_LEN, 0, types.len(), types.len(), strings.len()] {
        bytes.extend_from_slice(&(word as u32).to_ne_bytes());
    }
    bytes.extend_from_slice(types);
    bytes.extend_from_slice(strings);
    bytes
}

impl<'a> Btf<'a> {
    /// Indexes the contents of a BTF file.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        Self::new(bytes, 1 << 14)?.index(None)
    }

    /// Like [`Btf::parse`], but only types with these names can be found by name, functions included. For a few names
    /// this is much faster: indexing all names takes longer than everything else.
    pub fn parse_for(bytes: &'a [u8], names: &[&str]) -> Result<Self, BtfError> {
        Self::new(bytes, names.len())?.index(Some(&WantedNames::new(names)))
    }

    fn new(bytes: &'a [u8], names: usize) -> Result<Self, BtfError> {
        /// A lower bound for the mean length of a type, in bytes, in every kernel so far.
        const MEAN_LEN: usize = 20;
        let (types, strings) = Self::sections(bytes)?;
        let mut starts = Vec::with_capacity(types.len() / MEAN_LEN);
        starts.push(0);
        Ok(Self { types, strings, starts, names: HashMap::with_capacity(names) })
    }

    /// Returns the type section and the string section.
    fn sections(bytes: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), BtfError> {
        match bytes.first_chunk::<2>() {
            Some(&magic) if u16::from_ne_bytes(magic) == MAGIC => {}
            Some(&magic) if u16::from_ne_bytes(magic).swap_bytes() == MAGIC => {
                return Err(BtfError::Foreign("it is of a machine with another byte order"));
            }
            _ => return Err(BtfError::Foreign("it does not begin with BTF's magic number")),
        }
        if bytes.get(2).is_some_and(|&version| version != VERSION) {
            return Err(BtfError::Foreign("its version is not 1"));
        }
        let header_len = u32_at(bytes, 4, "header")? as usize;
        if header_len < HEADER_LEN {
            return Err(BtfError::Foreign("its header is shorter than any version's"));
        }
        let section = |offset_at, what| -> Result<&'a [u8], BtfError> {
            let start = header_len.saturating_add(u32_at(bytes, offset_at, what)? as usize);
            let len = u32_at(bytes, offset_at + 4, what)? as usize;
            bytes.get(start..start.saturating_add(len)).ok_or(BtfError::Truncated {
                what,
                at: start,
                len: bytes.len(),
            })
        };
        Ok((section(8, "type section")?, section(16, "string section")?))
    }

    fn index(mut self, wanted: Option<&WantedNames<'_>>) -> Result<Self, BtfError> {
        let mut at = 0;
        while at < self.types.len() {
            let id = self.starts.len() as u32;
            self.starts.push(at as u32);
            let found = self.type_at(at)?;
            let Type { rest, name, kind, count, .. } = found;
            let shape = Shape::of(kind).ok_or(BtfError::UnknownKind { id, kind })?;
            let indexed = match kind {
                kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 => true,
                kind::TYPEDEF => {
                    let name = self.string(name)?;
                    name.starts_with(b"btf_trace_") || name.starts_with(b"class_")
                }
                kind::FUNC => wanted.is_some(),
                _ => false,
            };
            let indexed = indexed && wanted.is_none_or(|wanted| wanted.begins(self.strings, name));
            if indexed && name != 0 {
                let name = self.string(name)?;
                self.names.entry((kind, name)).or_insert(id);
            }
            at = rest + shape.rows(count) * shape.row_len();
        }
        if at > self.types.len() {
            return Err(BtfError::Truncated { what: "last type", at, len: self.types.len() });
        }
        Ok(self)
    }

    fn type_at(&self, at: usize) -> Result<Type, BtfError> {
        let info = u32_at(self.types, at + 4, "type")?;
        Ok(Type {
            rest: at + TYPE_LEN,
            name: u32_at(self.types, at, "type")?,
            kind: (info >> 24) & 0x1f,
            count: (info & 0xffff) as usize,
            kind_flag: info >> 31 != 0,
            size_or_type: u32_at(self.types, at + 8, "type")?,
        })
    }

    fn get(&self, id: u32) -> Result<Type, BtfError> {
        match self.starts.get(id as usize) {
            Some(&start) if id != 0 => self.type_at(start as usize),
            _ => Err(BtfError::Unexpected(format!("type {id}"))),
        }
    }

    fn string(&self, offset: u32) -> Result<&'a [u8], BtfError> {
        let tail = self.strings.get(offset as usize..).unwrap_or(&[]);
        match tail.iter().position(|&b| b == 0) {
            Some(end) => Ok(&tail[..end]),
            None => Err(BtfError::Truncated { what: "string", at: offset as usize, len: self.strings.len() }),
        }
    }

    fn find(&self, kinds: &[u32], name: &str) -> Result<u32, BtfError> {
        kinds
            .iter()
            .find_map(|&kind| self.names.get(&(kind, name.as_bytes())).copied())
            .ok_or_else(|| BtfError::NoType(name.to_owned()))
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, id: u32) -> Result<Type, BtfError> {
        Ok(self.resolve_id(id)?.1)
    }

    fn resolve_id(&self, mut id: u32) -> Result<(u32, Type), BtfError> {
        for _ in 0..MAX_DEPTH {
            let found = self.get(id)?;
            match found.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = found.size_or_type;
                }
                _ => return Ok((id, found)),
            }
        }
        Err(BtfError::Unexpected(format!("type {id}")))
    }

    /// The fields of a type: the one after its kind, then those of each row.
    fn words(
        &self,
        id: u32,
    ) -> Result<impl Iterator<Item = Result<(Word, u32), BtfError>> + use<'_, 'a>, BtfError> {
        let Type { rest, name, kind, count, size_or_type, .. } = self.get(id)?;
        let shape = Shape::of(kind).ok_or(BtfError::UnknownKind { id, kind })?;
        let rows = (0..shape.rows(count)).flat_map(move |_| shape.row).enumerate();
        let rows = rows.map(move |(index, word)| Ok((*word, u32_at(self.types, rest + 4 * index, "row")?)));
        Ok([Ok((Word::Name, name)), Ok((shape.word, size_or_type))].into_iter().chain(rows))
    }

    /// Number of types, void included.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are no types but void.
    pub fn is_empty(&self) -> bool {
        self.len() <= 1
    }

    /// Size of a structure or union in bytes.
    pub fn size(&self, structure: &str) -> Result<u32, BtfError> {
        let id = self.find(&[kind::STRUCT, kind::UNION], structure)?;
        Ok(self.get(id)?.size_or_type)
    }

    /// Byte offset of `field` in `structure`. It follows anonymous members, and named ones if `field` has dots.
    pub fn field(&self, structure: &str, field: &str) -> Result<u32, BtfError> {
        Ok(self.field_and_type(structure, field)?.0)
    }

    /// Number of elements of the array `structure.field`.
    pub fn array_len(&self, structure: &str, field: &str) -> Result<u32, BtfError> {
        u32_at(self.types, self.array(structure, field)?.rest + 8, "array")
    }

    /// Size of one element of the array `structure.field` in bytes.
    pub fn element_size(&self, structure: &str, field: &str) -> Result<u32, BtfError> {
        let element = u32_at(self.types, self.array(structure, field)?.rest, "array")?;
        let found = self.resolve(element)?;
        match found.kind {
            kind::INT | kind::STRUCT | kind::UNION => Ok(found.size_or_type),
            _ => Err(BtfError::Unexpected(format!("an element of {structure}.{field}"))),
        }
    }

    fn array(&self, structure: &str, field: &str) -> Result<Type, BtfError> {
        let found = self.resolve(self.field_and_type(structure, field)?.1)?;
        match found.kind {
            kind::ARRAY => Ok(found),
            _ => Err(BtfError::Unexpected(format!("{structure}.{field}"))),
        }
    }

    fn field_and_type(&self, structure: &str, field: &str) -> Result<(u32, u32), BtfError> {
        let mut id = self.find(&[kind::STRUCT, kind::UNION], structure)?;
        let mut bits = 0;
        for part in field.split('.') {
            let found = self.resolve(id)?;
            let Some((at, member_type)) = self.member(&found, part.as_bytes(), 0)? else {
                return Err(BtfError::NoField { structure: structure.to_owned(), field: field.to_owned() });
            };
            bits = add(bits, at, structure)?;
            id = member_type;
        }
        if bits % 8 != 0 {
            return Err(BtfError::BitField { structure: structure.to_owned(), field: field.to_owned() });
        }
        Ok((bits / 8, id))
    }

    /// Bit offset and type of the member with this name.
    fn member(&self, of: &Type, name: &[u8], depth: usize) -> Result<Option<(u32, u32)>, BtfError> {
        if !matches!(of.kind, kind::STRUCT | kind::UNION) || depth > MAX_DEPTH {
            return Ok(None);
        }
        for index in 0..of.count {
            let at = of.rest + index * MEMBER_LEN;
            let member_name = self.string(u32_at(self.types, at, "member")?)?;
            let member_type = u32_at(self.types, at + 4, "member")?;
            let offset = u32_at(self.types, at + 8, "member")?;
            let offset = if of.kind_flag { offset & 0x00ff_ffff } else { offset };
            if member_name == name {
                return Ok(Some((offset, member_type)));
            }
            if member_name.is_empty()
                && let Some((inner, found)) = self.member(&self.resolve(member_type)?, name, depth + 1)?
            {
                return Ok(Some((add(offset, inner, "a member")?, found)));
            }
        }
        Ok(None)
    }

    /// Whether the kernel has this lock guard (`DEFINE_LOCK_GUARD_0` and similar macros, include/linux/cleanup.h).
    pub fn has_guard(&self, name: &str) -> bool {
        self.names.contains_key(&(kind::TYPEDEF, format!("class_{name}_t").as_bytes()))
    }

    /// Value of a member of an enumeration.
    pub fn enumerator(&self, enumeration: &str, name: &str) -> Result<u32, BtfError> {
        let found = self.get(self.find(&[kind::ENUM, kind::ENUM64], enumeration)?)?;
        let step = if found.kind == kind::ENUM { 8 } else { 12 };
        for index in 0..found.count {
            let at = found.rest + index * step;
            if self.string(u32_at(self.types, at, "enumerator")?)? == name.as_bytes() {
                return u32_at(self.types, at + 4, "enumerator");
            }
        }
        Err(BtfError::NoField { structure: enumeration.to_owned(), field: name.to_owned() })
    }
}

#[cfg(test)]
mod tests;
