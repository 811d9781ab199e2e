//! Finds source lines in the line records that bpf-linker writes for the verifier (.BTF.ext).
//!
//! The kernel's Documentation/bpf/btf.rst describes the layout.

use std::fmt;

/// The source lines of the instructions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    records: Vec<Record>,
}

#[derive(Debug, PartialEq, Eq)]
struct Record {
    section: String,
    /// Offset of the instruction, in bytes from the start of its section.
    offset: u64,
    file: String,
    line: u32,
}

impl Lines {
    /// Reads the sections. Returns `None` if one is absent or damaged.
    pub(super) fn read(btf: Option<&[u8]>, ext: Option<&[u8]>) -> Option<Self> {
        let strings = Strings::read(Reader(btf?))?;
        let ext = Reader(ext?);
        // The header holds magic and version, its own length, offset and length of the function records, and the same
        // for the line records. Offsets count from the end of the header.
        let (header, offset, length) = (ext.u32(4)?, ext.u32(16)?, ext.u32(20)?);
        let start = header.checked_add(offset)?;
        let mut rest = ext.slice(start, length)?;

        let size = rest.u32(0)?;
        rest = rest.skip(4)?;
        let mut records = Vec::new();
        while !rest.0.is_empty() {
            let (section, count) = (strings.get(rest.u32(0)?)?, rest.u32(4)?);
            rest = rest.skip(8)?;
            for _ in 0..count {
                let (offset, file, column_and_line) = (rest.u32(0)?, rest.u32(4)?, rest.u32(12)?);
                records.push(Record {
                    section: section.to_owned(),
                    offset: offset.into(),
                    file: strings.get(file)?.to_owned(),
                    line: column_and_line >> 10,
                });
                rest = rest.skip(size)?;
            }
        }
        Some(Self { records })
    }

    /// The source line of an instruction in the function that starts at `start`. It is the line of the last record
    /// before the instruction. If that record is in the standard library (inlined code), it is the last line before
    /// that is not in the library.
    pub(super) fn of(&self, section: &str, start: u64, offset: u64) -> Option<Line> {
        let mut records: Vec<_> = self
            .records
            .iter()
            // The compiler writes line 0 if it does not know the line.
            .filter(|record| record.section == section && record.line != 0)
            .filter(|record| (start..=offset).contains(&record.offset))
            .collect();
        records.sort_by_key(|record| record.offset);
        let last = *records.last()?;
        let ours = records.into_iter().rfind(|record| !record.is_library())?;
        Some(Line { exact: ours == last, file: ours.file.clone(), number: ours.line })
    }
}

impl Record {
    fn is_library(&self) -> bool {
        self.file.contains("/rust/library/")
    }
}

/// The line of an instruction, or one near it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    exact: bool,
    file: String,
    pub(super) number: u32,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exact, file, number } = self;
        write!(f, "{} {file}:{number}", if *exact { "at" } else { "near" })
    }
}

/// The strings of .BTF.
struct Strings<'a>(&'a [u8]);

impl<'a> Strings<'a> {
    fn read(btf: Reader<'a>) -> Option<Self> {
        let (header, offset, length) = (btf.u32(4)?, btf.u32(16)?, btf.u32(20)?);
        Some(Self(btf.slice(header.checked_add(offset)?, length)?.0))
    }

    fn get(&self, offset: u32) -> Option<&'a str> {
        let bytes = self.0.get(usize::try_from(offset).ok()?..)?;
        str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()
    }
}

#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn u32(&self, offset: u32) -> Option<u32> {
        let bytes = self.0.get(usize::try_from(offset).ok()?..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    }

    fn skip(self, count: u32) -> Option<Self> {
        self.0.get(usize::try_from(count).ok()?..).map(Self)
    }

    fn slice(self, start: u32, length: u32) -> Option<Self> {
        let rest = self.skip(start)?;
        rest.0.get(..usize::try_from(length).ok()?).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: u64, line: u32) -> Record {
        Record { section: "tracepoint".to_owned(), offset, file: "src/main.rs".to_owned(), line }
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// A .BTF section with these strings and no types.
    fn btf(strings: &[u8]) -> Vec<u8> {
        let length = u32::try_from(strings.len()).expect("short");
        [words(&[0x0001_eb9f, 24, 0, 0, 0, length]), strings.to_vec()].concat()
    }

    #[test]
    fn records_are_read() {
        let btf = btf(b"\0tracepoint\0src/main.rs\0");
        let ext = words(&[
            0x0001_eb9f,
            24,
            0,
            0,
            0,
            44, // header: line records at 0, 44 bytes
            16, // bytes a record
            1,
            2, // section "tracepoint", two records
            0,
            12,
            0,
            7 << 10 | 3, // offset, file, source text, line and column
            8,
            12,
            0,
            9 << 10,
        ]);
        let lines = Lines::read(Some(&btf), Some(&ext)).expect("well-formed");
        assert_eq!(lines, Lines { records: vec![record(0, 7), record(8, 9)] });
    }

    #[test]
    fn damaged_sections_have_no_lines() {
        let btf = btf(b"\0tracepoint\0");
        let ext = words(&[0x0001_eb9f, 24, 0, 0, 0, 44, 16, 1, 2]);
        for cut in 0..ext.len() {
            assert_eq!(Lines::read(Some(&btf), Some(&ext[..cut])), None, "cut at {cut}");
        }
        assert_eq!(Lines::read(None, Some(&ext)), None);
        assert_eq!(Lines::read(Some(&btf[..20]), Some(&ext)), None);
    }

    fn line(lines: &Lines, start: u64, offset: u64) -> Option<String> {
        lines.of("tracepoint", start, offset).map(|line| line.to_string())
    }

    #[test]
    fn the_last_record_before_an_instruction_is_its_line() {
        let lines = Lines { records: vec![record(0, 7), record(16, 9), record(40, 11)] };
        assert_eq!(line(&lines, 0, 24).as_deref(), Some("at src/main.rs:9"));
        assert_eq!(line(&lines, 0, 40).as_deref(), Some("at src/main.rs:11"));
    }

    #[test]
    fn inlined_library_code_gets_the_last_line_outside_the_library() {
        let library = "/usr/lib/rustlib/src/rust/library/core/src/option.rs".to_owned();
        let lines = Lines { records: vec![record(0, 7), Record { file: library, ..record(8, 1016) }] };
        assert_eq!(line(&lines, 0, 8).as_deref(), Some("near src/main.rs:7"));
        assert_eq!(line(&lines, 8, 8), None);
    }

    #[test]
    fn lines_of_other_functions_and_sections_are_ignored() {
        let lines = Lines { records: vec![record(0, 7)] };
        assert_eq!(lines.of("tracepoint", 8, 24), None);
        assert_eq!(lines.of(".text", 0, 24), None);
    }

    #[test]
    fn line_0_is_ignored() {
        let lines = Lines { records: vec![record(0, 7), record(8, 0)] };
        assert_eq!(line(&lines, 0, 8).as_deref(), Some("at src/main.rs:7"));
    }
}
