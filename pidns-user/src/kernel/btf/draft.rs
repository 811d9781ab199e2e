//! BTF as values that a test can cut out of a kernel's BTF, change and write.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pidns_ebpf::abi::symbols::Source;

use super::{Btf, BtfError, MAX_DEPTH, MEMBER_LEN, Shape, Type, Word, assemble, kind, u32_at};

/// The parts to cut out of a kernel's BTF.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'w> {
    /// Members and sizes of structures, members of enumerations.
    pub sources: &'w [Source],
    /// Names of tracepoints, without `btf_trace_`.
    pub tracepoints: &'w [&'w str],
    /// Names of functions.
    pub functions: &'w [&'w str],
    /// Names of lock guards.
    pub guards: &'w [&'w str],
}

/// Types that can be changed. Type N has index N - 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The types.
    pub types: Vec<DraftType>,
}

/// A type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftType {
    /// Its name; empty if it has none.
    pub name: String,
    /// `BTF_KIND_*`.
    pub kind: u32,
    /// The kind's own flag.
    pub flag: bool,
    /// A function's linkage.
    pub linkage: u16,
    /// Its size, or the type that it refers to.
    pub cell: Cell,
    /// Its members, parameters, or other rows of its kind.
    pub rows: Vec<Vec<Cell>>,
}

/// A field of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A name.
    Name(String),
    /// Number of a type.
    Type(u32),
    /// A size, an offset, a number.
    Plain(u32),
}

/// Types to keep, with the rows of each that are kept.
type KeptMembers = BTreeMap<u32, BTreeSet<usize>>;

impl Btf<'_> {
    /// Cuts BTF down to the wanted members of structures and enumerations, the wanted functions and tracepoints, and
    /// all types that these refer to. Structures and enumerations lose their other members.
    ///
    /// Wanted parts that do not exist are ignored: the draft and the whole BTF both lack them.
    pub fn extract(&self, wanted: &Wanted<'_>) -> Result<Draft, BtfError> {
        let mut kept = KeptMembers::new();
        for source in wanted.sources {
            match source {
                Source::Size(structure) => {
                    if let Ok(id) = self.structure(structure) {
                        kept.entry(id).or_default();
                    }
                }
                Source::Field(structure, field) | Source::Element(structure, field) => {
                    if let Ok(id) = self.structure(structure) {
                        self.keep_field(id, field, &mut kept)?;
                    }
                }
                Source::Enumerator(enumeration, name) => {
                    if let Ok(id) = self.find(&[kind::ENUM, kind::ENUM64], enumeration) {
                        self.keep_enumerator(id, name, &mut kept)?;
                    }
                }
            }
        }
        let tracepoints = wanted.tracepoints.iter().map(|name| format!("btf_trace_{name}"));
        let guards = wanted.guards.iter().map(|name| format!("class_{name}_t"));
        for typedef in tracepoints.chain(guards) {
            if let Ok(id) = self.find(&[kind::TYPEDEF], &typedef) {
                kept.entry(id).or_default();
            }
        }
        for id in 1..self.len() as u32 {
            let found = self.get(id)?;
            if found.kind == kind::FUNC
                && wanted.functions.iter().any(|name| Ok(name.as_bytes()) == self.string(found.name))
            {
                kept.entry(id).or_default();
            }
        }
        self.close(&mut kept)?;
        self.draft(&kept)
    }

    /// Makes a draft of all types.
    pub fn to_draft(&self) -> Result<Draft, BtfError> {
        let mut all = KeptMembers::new();
        for id in 1..self.len() as u32 {
            all.insert(id, (0..self.rows_of(&self.get(id)?)).collect());
        }
        self.draft(&all)
    }

    fn structure(&self, name: &str) -> Result<u32, BtfError> {
        self.find(&[kind::STRUCT, kind::UNION], name)
    }

    fn rows_of(&self, of: &Type) -> usize {
        Shape::of(of.kind).map_or(0, |shape| shape.rows(of.count))
    }

    fn keep_field(&self, mut id: u32, field: &str, kept: &mut KeptMembers) -> Result<(), BtfError> {
        kept.entry(id).or_default();
        for part in field.split('.') {
            let Some((path, member_type)) = self.path(id, part.as_bytes(), 0)? else { break };
            for (structure, row) in path {
                kept.entry(structure).or_default().insert(row);
            }
            id = member_type;
        }
        Ok(())
    }

    /// Returns the structures and rows on the way to a member, and the member's type.
    #[expect(clippy::type_complexity, reason = "a list of pairs, and the type at its end")]
    fn path(&self, id: u32, name: &[u8], depth: usize) -> Result<Option<(Vec<(u32, usize)>, u32)>, BtfError> {
        let (id, of) = self.resolve_id(id)?;
        if !matches!(of.kind, kind::STRUCT | kind::UNION) || depth > MAX_DEPTH {
            return Ok(None);
        }
        for row in 0..of.count {
            let at = of.rest + row * MEMBER_LEN;
            let member_name = self.string(u32_at(self.types, at, "member")?)?;
            let member_type = u32_at(self.types, at + 4, "member")?;
            if member_name == name {
                return Ok(Some((vec![(id, row)], member_type)));
            }
            if member_name.is_empty()
                && let Some((mut path, found)) = self.path(member_type, name, depth + 1)?
            {
                path.push((id, row));
                return Ok(Some((path, found)));
            }
        }
        Ok(None)
    }

    fn keep_enumerator(&self, id: u32, name: &str, kept: &mut KeptMembers) -> Result<(), BtfError> {
        let rows = kept.entry(id).or_default();
        let found = self.get(id)?;
        let step = Shape::of(found.kind).map_or(0, |shape| shape.row_len());
        for row in 0..found.count {
            if self.string(u32_at(self.types, found.rest + row * step, "enumerator")?)? == name.as_bytes() {
                rows.insert(row);
                break;
            }
        }
        Ok(())
    }

    /// Adds all types that the kept types refer to, directly or through other types.
    fn close(&self, kept: &mut KeptMembers) -> Result<(), BtfError> {
        let mut open: Vec<u32> = kept.keys().copied().collect();
        while let Some(id) = open.pop() {
            let of = self.get(id)?;
            let rows = kept.entry(id).or_default();
            if !matches!(of.kind, kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64) {
                *rows = (0..self.rows_of(&of)).collect();
            }
            let entry = self.entry(id, rows)?;
            for cell in std::iter::once(&entry.cell).chain(entry.rows.iter().flatten()) {
                if let Cell::Type(to @ 1..) = cell
                    && !kept.contains_key(to)
                {
                    kept.insert(*to, BTreeSet::new());
                    open.push(*to);
                }
            }
        }
        Ok(())
    }

    fn entry(&self, id: u32, rows: &BTreeSet<usize>) -> Result<DraftType, BtfError> {
        let Type { rest, name, kind, count, kind_flag, size_or_type } = self.get(id)?;
        let shape = Shape::of(kind).ok_or(BtfError::UnknownKind { id, kind })?;
        let text = |at| Ok::<_, BtfError>(String::from_utf8_lossy(self.string(at)?).into_owned());
        let cell = |word: Word, value: u32| {
            Ok::<_, BtfError>(match word {
                Word::Name => Cell::Name(text(value)?),
                Word::Type => Cell::Type(value),
                Word::Plain => Cell::Plain(value),
            })
        };
        let row = |row: &usize| {
            let at = rest + row * shape.row_len();
            let words = shape.row.iter().enumerate();
            words.map(|(index, word)| cell(*word, u32_at(self.types, at + 4 * index, "row")?)).collect()
        };
        Ok(DraftType {
            name: text(name)?,
            kind,
            flag: kind_flag,
            linkage: if kind == kind::FUNC { count as u16 } else { 0 },
            cell: cell(shape.word, size_or_type)?,
            rows: rows.iter().map(row).collect::<Result<_, _>>()?,
        })
    }

    /// Returns the kept types in their order, with new numbers.
    fn draft(&self, kept: &KeptMembers) -> Result<Draft, BtfError> {
        let numbers: HashMap<u32, u32> = kept.keys().copied().zip(1..).collect();
        let mut types = Vec::with_capacity(kept.len());
        for (id, rows) in kept {
            let mut entry = self.entry(*id, rows)?;
            for cell in std::iter::once(&mut entry.cell).chain(entry.rows.iter_mut().flatten()) {
                if let Cell::Type(to @ 1..) = cell {
                    let number = numbers.get(to).ok_or_else(|| BtfError::Unexpected(format!("type {id}")))?;
                    *to = *number;
                }
            }
            types.push(entry);
        }
        Ok(Draft { types })
    }
}

impl Draft {
    /// Writes a BTF file with these types.
    pub fn write(&self) -> Vec<u8> {
        let mut strings = Strings::default();
        let mut types = Vec::new();
        let mut put = |word: u32| types.extend_from_slice(&word.to_ne_bytes());
        for DraftType { name, kind, flag, linkage, cell, rows } in &self.types {
            let counted = if *kind == kind::FUNC { u32::from(*linkage) } else { counted(*kind, rows.len()) };
            put(strings.at(name));
            put(u32::from(*flag) << 31 | kind << 24 | counted);
            for cell in std::iter::once(cell).chain(rows.iter().flatten()) {
                put(match cell {
                    Cell::Name(name) => strings.at(name),
                    Cell::Type(word) | Cell::Plain(word) => *word,
                });
            }
        }
        assemble(&types, &strings.bytes)
    }
}

/// The count that a type of this kind stores for so many rows.
fn counted(kind: u32, rows: usize) -> u32 {
    let is_empty_row = Shape::of(kind).is_none_or(|shape| shape.rows(0) == shape.rows(1));
    if is_empty_row { 0 } else { rows as u32 & 0xffff }
}

/// A string section that stores each string once.
struct Strings {
    bytes: Vec<u8>,
    known: HashMap<String, u32>,
}

impl Default for Strings {
    fn default() -> Self {
        Self { bytes: vec![0], known: HashMap::from([(String::new(), 0)]) }
    }
}

impl Strings {
    fn at(&mut self, name: &str) -> u32 {
        if let Some(at) = self.known.get(name) {
            return *at;
        }
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.known.insert(name.to_owned(), at);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::btf::{PATH, parse_complete};

    fn running() -> Vec<u8> {
        std::fs::read(PATH).expect("the running kernel has BTF")
    }

    const WANTED: Wanted<'static> = Wanted {
        sources: &[
            Source::Field("task_struct", "thread_info.status"),
            Source::Field("task_struct", "comm"),
            Source::Field("pid", "no_such_field"),
            Source::Field("no_such_structure", "field"),
            Source::Size("upid"),
            Source::Enumerator("bpf_func_id", "BPF_FUNC_map_lookup_elem"),
        ],
        tracepoints: &["sched_process_fork", "no_such_tracepoint"],
        functions: &["release_task", "no_such_function"],
        guards: &["rcu", "no_such_guard"],
    };

    #[test]
    fn an_extract_is_small_and_answers_all_requests() {
        let bytes = running();
        let all = Btf::parse(&bytes).unwrap();
        let draft = all.extract(&WANTED).unwrap();
        let small = draft.write();
        assert!(small.len() < 2_000, "{} bytes: {draft:#?}", small.len());
        let cut = parse_complete(&small).expect("an extract without dangling references");
        for (structure, field) in
            [("task_struct", "thread_info.status"), ("task_struct", "comm"), ("pid", "no_such_field")]
        {
            assert_eq!(cut.field(structure, field), all.field(structure, field), "{structure}.{field}");
        }
        assert!(
            matches!(cut.field("task_struct", "pid"), Err(BtfError::NoField { .. })),
            "it was not requested"
        );
        assert_eq!(cut.array_len("task_struct", "comm"), Ok(16));
        assert_eq!(cut.size("upid"), Ok(16));
        assert_eq!(cut.enumerator("bpf_func_id", "BPF_FUNC_map_lookup_elem"), Ok(1));
        assert_eq!(
            cut.tracepoint("sched_process_fork").unwrap().1,
            all.tracepoint("sched_process_fork").unwrap().1
        );
        let functions = cut.functions(WANTED.functions).unwrap();
        assert_eq!(functions.len(), 1);
        assert_eq!(functions["release_task"].1.to_string(), "void (struct task_struct *)");
        assert!(cut.has_guard("rcu") && !cut.has_guard("no_such_guard"));
    }

    #[test]
    fn written_values_read_back_the_same() {
        let bytes = running();
        let draft = Btf::parse(&bytes).unwrap().extract(&WANTED).unwrap();
        let small = draft.write();
        let again = Btf::parse(&small).unwrap().to_draft().unwrap();
        assert_eq!(again, draft);
        assert_eq!(again.write(), small);
    }
}
