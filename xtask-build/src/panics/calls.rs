//! Finds which function calls which in an eBPF object.
//!
//! RFC 9669 defines the instruction set. The kernel's Documentation/bpf/llvm_reloc.rst explains relocations of calls.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionKind, SymbolKind};

/// The functions of an object and their calls.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) functions: Vec<Function>,
    pub(super) calls: Vec<Call>,
}

#[derive(Debug)]
pub(super) struct Function {
    /// Demangled.
    pub(super) name: String,
    pub(super) section: String,
    /// The first byte in the section, and the one after the last.
    pub(super) start: u64,
    pub(super) end: u64,
}

/// A call, or a jump to itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// Index of the calling function.
    pub(super) caller: usize,
    /// Name of the called function. `None` for a jump to itself: the compiler translates a panic handler's `loop {}` to
    /// such a jump.
    pub(super) callee: Option<String>,
    /// Offset of the instruction in the caller's section.
    pub(super) offset: u64,
}

/// The target of a relocation.
enum Target {
    Defined { section: String, offset: u64 },
    Undefined(String),
}

impl Code {
    pub(super) fn read(file: &object::File<'_>) -> Result<Self> {
        let mut code = Self { functions: functions(file)?, calls: Vec::new() };
        for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
            let name = section.name().context("a section has no readable name")?;
            let bytes = section.data().with_context(|| format!("cannot read section {name}"))?;
            let mut relocated = HashMap::new();
            for (offset, relocation) in section.relocations() {
                if let RelocationTarget::Symbol(index) = relocation.target() {
                    relocated.insert(offset, target(file, index)?);
                }
            }
            code.add_section(name, bytes, &relocated);
        }
        Ok(code)
    }

    /// Reads the instructions of a section. `relocated` holds the calls that the linker left for the loader to fill
    /// in.
    fn add_section(&mut self, section: &str, bytes: &[u8], relocated: &HashMap<u64, Target>) {
        for (offset, flow) in flows(bytes) {
            let Some(caller) = self.function_at(section, offset) else { continue };
            let callee = match (flow, relocated.get(&offset)) {
                (Flow::ToItself, _) => None,
                (Flow::Call { .. }, Some(Target::Undefined(name))) => Some(name.clone()),
                (Flow::Call { distance }, place) => {
                    // For calls within a section the linker has filled in the distance from the instruction.
                    let (section, from) = match place {
                        Some(Target::Defined { section, offset }) => (section.as_str(), *offset),
                        _ => (section, offset),
                    };
                    let callee =
                        from.checked_add_signed(distance).and_then(|at| self.function_at(section, at));
                    let Some(callee) = callee else { continue };
                    Some(self.functions[callee].name.clone())
                }
            };
            self.calls.push(Call { caller, callee, offset });
        }
    }

    fn function_at(&self, section: &str, offset: u64) -> Option<usize> {
        self.functions.iter().position(|function| {
            function.section == section && (function.start..function.end).contains(&offset)
        })
    }
}

fn functions(file: &object::File<'_>) -> Result<Vec<Function>> {
    let mut functions = Vec::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        // A function without a section is defined elsewhere. Its calls are found by their relocations.
        let Some(index) = symbol.section_index() else { continue };
        let name = demangled(symbol.name().context("a function has no readable name")?);
        let section = file.section_by_index(index).with_context(|| format!("{name} has no section"))?;
        let section =
            section.name().with_context(|| format!("the section of {name} has no readable name"))?.to_owned();
        let start = symbol.address();
        functions.push(Function { name, section, start, end: start + symbol.size() });
    }
    Ok(functions)
}

fn target(file: &object::File<'_>, index: object::SymbolIndex) -> Result<Target> {
    let symbol = file.symbol_by_index(index).context("a relocation has no symbol")?;
    Ok(match symbol.section_index() {
        Some(section) => Target::Defined {
            section: file.section_by_index(section)?.name()?.to_owned(),
            offset: symbol.address(),
        },
        None => Target::Undefined(demangled(symbol.name()?)),
    })
}

/// Demangles a symbol and drops its hash.
fn demangled(symbol: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(symbol))
}

/// Size of an instruction in bytes.
const INSTRUCTION: usize = 8;

/// The target of an instruction.
enum Flow {
    /// A call. The distance is in bytes, from the instruction or, with a relocation, from its symbol.
    Call { distance: i64 },
    /// A jump to itself.
    ToItself,
}

/// All calls and jumps to themselves, with their offsets.
fn flows(bytes: &[u8]) -> impl Iterator<Item = (u64, Flow)> {
    const LOAD_64: u8 = 0x18;
    const JUMP: u8 = 0x05;
    const JUMP_LONG: u8 = 0x06;
    const CALL: u8 = 0x85;
    /// The source register of a call to another BPF function. Calls of kernel helpers have 0.
    const PSEUDO_CALL: u8 = 1;

    // A 64-bit load takes two instructions. The second one holds data.
    let mut is_data = false;
    bytes.as_chunks::<INSTRUCTION>().0.iter().zip((0..).step_by(INSTRUCTION)).filter_map(
        move |(&[opcode, registers, j0, j1, i0, i1, i2, i3], offset)| {
            let skipped = std::mem::replace(&mut is_data, false);
            let jump = i16::from_le_bytes([j0, j1]);
            let immediate = i32::from_le_bytes([i0, i1, i2, i3]);
            let flow = match opcode {
                _ if skipped => return None,
                // Distances count instructions, starting at the next one.
                CALL if registers >> 4 == PSEUDO_CALL => {
                    Flow::Call { distance: (i64::from(immediate) + 1) * INSTRUCTION as i64 }
                }
                JUMP if jump == -1 => Flow::ToItself,
                JUMP_LONG if immediate == -1 => Flow::ToItself,
                _ => {
                    is_data = opcode == LOAD_64;
                    return None;
                }
            };
            Some((offset, flow))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];
    const JUMP_TO_ITSELF: [u8; 8] = [0x05, 0, 0xff, 0xff, 0, 0, 0, 0];
    const CALL_HELPER_7: [u8; 8] = [0x85, 0, 0, 0, 7, 0, 0, 0];
    /// The first half of a 64-bit load.
    const LOAD: [u8; 8] = [0x18, 1, 0, 0, 0, 0, 0, 0];

    fn call(immediate: i32) -> [u8; 8] {
        let [a, b, c, d] = immediate.to_le_bytes();
        [0x85, 0x10, 0, 0, a, b, c, d]
    }

    /// The calls between the functions, if `code` is the section of the first one.
    fn calls(
        functions: &[(&str, &str, u64, u64)],
        code: &[[u8; 8]],
        relocated: &HashMap<u64, Target>,
    ) -> Vec<String> {
        let section = functions[0].1;
        let function = |&(name, section, start, end): &(&str, &str, u64, u64)| Function {
            name: name.to_owned(),
            section: section.to_owned(),
            start,
            end,
        };
        let mut read = Code { functions: functions.iter().map(function).collect(), calls: Vec::new() };
        read.add_section(section, &code.concat(), relocated);
        let describe = |call: &Call| {
            let callee = call.callee.as_deref().unwrap_or("itself");
            format!("{} -> {callee} at {}", read.functions[call.caller].name, call.offset)
        };
        read.calls.iter().map(describe).collect()
    }

    #[test]
    fn calls_within_a_section_need_no_relocation() {
        let functions = [("a", ".text", 0, 16), ("b", ".text", 16, 24)];
        assert_eq!(
            calls(&functions, &[call(1), EXIT, call(-3)], &HashMap::new()),
            ["a -> b at 0", "b -> a at 16"]
        );
    }

    #[test]
    fn a_call_of_another_section_counts_from_its_symbol() {
        let functions = [("program", "tracepoint", 0, 16), ("a", ".text", 0, 8), ("b", ".text", 8, 16)];
        let text = |offset| Target::Defined { section: ".text".to_owned(), offset };
        // The first call has the section's symbol and a distance, the second the function's own symbol.
        let relocated = HashMap::from([(0, text(0)), (8, text(8))]);
        assert_eq!(
            calls(&functions, &[call(0), call(-1)], &relocated),
            ["program -> b at 0", "program -> b at 8"]
        );
    }

    #[test]
    fn a_call_of_a_symbol_outside_of_the_object_keeps_its_name() {
        let relocated = HashMap::from([(0, Target::Undefined("rust_begin_unwind".to_owned()))]);
        let functions = [("program", "tracepoint", 0, 8)];
        assert_eq!(calls(&functions, &[call(-1)], &relocated), ["program -> rust_begin_unwind at 0"]);
    }

    #[test]
    fn a_jump_to_itself_is_found_in_code_and_not_in_data() {
        let functions = [("program", "tracepoint", 0, 40)];
        let code = [CALL_HELPER_7, LOAD, JUMP_TO_ITSELF, EXIT, JUMP_TO_ITSELF];
        assert_eq!(calls(&functions, &code, &HashMap::new()), ["program -> itself at 32"]);
    }

    #[test]
    fn both_manglings_are_read_without_hashes() {
        for symbol in [
            "_RNvNtCsbfX8Qb9dUVx_4core9panicking18panic_bounds_check",
            "_ZN4core9panicking18panic_bounds_check17h0123456789abcdefE",
            "_ZN4core9panicking18panic_bounds_check17h0123456789abcdefE.llvm.1",
        ] {
            assert_eq!(demangled(symbol), "core::panicking::panic_bounds_check");
        }
        assert_eq!(demangled("memcpy"), "memcpy");
    }
}
