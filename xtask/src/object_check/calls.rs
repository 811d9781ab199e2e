//! Who calls whom in a BPF object.
//!
//! How relocations and calls go together is in the kernel's Documentation/bpf/llvm_reloc.rst and in libbpf's
//! bpf_object__reloc_code.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionKind, SymbolKind};

use super::{
    back_edges::{BackEdge, back_edges},
    instruction::{Flow, instructions},
};

/// The functions of an object, and how control gets from one to another.
#[derive(Debug, Default)]
pub(super) struct Code {
    pub(super) functions: Vec<Function>,
    pub(super) calls: Vec<Call>,
    pub(super) endless_loops: Vec<EndlessLoop>,
    /// Each with its function: which of the functions.
    pub(super) back_edges: Vec<(usize, BackEdge)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    /// As the symbol table has it.
    pub(super) name: String,
    pub(super) section: String,
    /// The first byte in the section, and the one after the last.
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Function {
    pub(super) fn new(name: &str, section: &str, start: u64, end: u64) -> Self {
        Self { name: name.to_owned(), section: section.to_owned(), start, end }
    }

    /// Whether the kernel loads it: such functions are in sections named after what they attach to, all others in
    /// .text (and the ones that LLVM splits off it).
    fn is_program(&self) -> bool {
        !self.section.starts_with(".text")
    }
}

/// A call, or the address of a function taken for a callback.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// Which of the functions.
    pub(super) caller: usize,
    pub(super) callee: Callee,
    /// Of the instruction, in the caller's section.
    pub(super) offset: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Callee {
    /// Which of the functions.
    Function(usize),
    /// A symbol that the object does not define.
    Undefined(String),
}

/// A jump to itself, which is what remains of a panic handler's `loop {}`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EndlessLoop {
    /// Which of the functions.
    pub(super) function: usize,
    /// Of the instruction, in the function's section.
    pub(super) offset: u64,
}

impl Code {
    pub(super) fn read(file: &object::File<'_>) -> Result<Self> {
        let mut code = Self { functions: functions(file)?, ..Self::default() };
        for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
            let name = section.name().context("a section has no readable name")?;
            let bytes = section.data().with_context(|| format!("cannot read section {name}"))?;
            let mut relocated = HashMap::new();
            for (offset, relocation) in section.relocations() {
                if let RelocationTarget::Symbol(index) = relocation.target() {
                    relocated.insert(offset, referent(file, index)?);
                }
            }
            code.add_section(name, bytes, file.is_little_endian(), &relocated);
        }
        Ok(code)
    }

    /// Follows the instructions of a section. `relocated` has what the linker left for the loader to fill in.
    fn add_section(
        &mut self,
        section: &str,
        bytes: &[u8],
        little_endian: bool,
        relocated: &HashMap<u64, Referent>,
    ) {
        self.add_back_edges(section, bytes, little_endian);
        for (offset, instruction) in instructions(bytes, little_endian) {
            let Some(function) = self.function_at(section, offset) else {
                continue;
            };
            let callee = match (instruction.flow(), relocated.get(&offset)) {
                (Flow::Elsewhere, _) => continue,
                (Flow::ToItself, _) => {
                    self.endless_loops.push(EndlessLoop { function, offset });
                    continue;
                }
                (Flow::Call { .. } | Flow::Address { .. }, Some(Referent::Undefined(name))) => {
                    Some(Callee::Undefined(name.clone()))
                }
                (
                    Flow::Call { distance } | Flow::Address { distance },
                    Some(Referent::Defined { section, offset }),
                ) => self.callee_at(section, offset.checked_add_signed(distance)),
                // Within a section the linker has filled it in.
                (Flow::Call { distance }, None) => {
                    self.callee_at(section, offset.checked_add_signed(distance))
                }
                (Flow::Address { .. }, None) => None,
            };
            self.calls.extend(callee.map(|callee| Call { caller: function, callee, offset }));
        }
    }

    fn add_back_edges(&mut self, section: &str, bytes: &[u8], little_endian: bool) {
        for (index, function) in self.functions.iter().enumerate() {
            let inside =
                |offset: &u64| function.section == section && (function.start..function.end).contains(offset);
            let all = instructions(bytes, little_endian);
            let own: Vec<_> = all.filter(|(offset, _)| inside(offset)).collect();
            self.back_edges.extend(back_edges(&own).into_iter().map(|edge| (index, edge)));
        }
    }

    fn callee_at(&self, section: &str, offset: Option<u64>) -> Option<Callee> {
        self.function_at(section, offset?).map(Callee::Function)
    }

    fn function_at(&self, section: &str, offset: u64) -> Option<usize> {
        self.functions.iter().position(|function| {
            function.section == section && (function.start..function.end).contains(&offset)
        })
    }

    /// The programs that run the function, itself included.
    pub(super) fn programs_that_reach<'a>(
        &'a self,
        function: &Function,
    ) -> impl Iterator<Item = &'a Function> {
        let mut reached: Vec<bool> = self.functions.iter().map(|other| other == function).collect();
        loop {
            let mut grown = false;
            for call in &self.calls {
                if let Callee::Function(callee) = call.callee
                    && reached[callee]
                    && !reached[call.caller]
                {
                    reached[call.caller] = true;
                    grown = true;
                }
            }
            if !grown {
                break;
            }
        }
        self.functions
            .iter()
            .zip(reached)
            .filter_map(|(function, reached)| (reached && function.is_program()).then_some(function))
    }
}

fn functions(file: &object::File<'_>) -> Result<Vec<Function>> {
    let mut functions = Vec::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        // One without a section is defined elsewhere; calls of it are found by their relocations.
        let Some(index) = symbol.section_index() else { continue };
        let name = symbol.name().context("a function has no readable name")?;
        let section = file.section_by_index(index).with_context(|| format!("{name} has no section"))?;
        let section =
            section.name().with_context(|| format!("the section of {name} has no readable name"))?;
        functions.push(Function::new(name, section, symbol.address(), symbol.address() + symbol.size()));
    }
    Ok(functions)
}

/// What a relocation refers to.
enum Referent {
    Defined { section: String, offset: u64 },
    Undefined(String),
}

fn referent(file: &object::File<'_>, index: object::SymbolIndex) -> Result<Referent> {
    let symbol = file.symbol_by_index(index).context("a relocation has no symbol")?;
    Ok(match symbol.section_index() {
        Some(section) => Referent::Defined {
            section: file.section_by_index(section)?.name()?.to_owned(),
            offset: symbol.address(),
        },
        None => Referent::Undefined(symbol.name()?.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];
    const JUMP_TO_ITSELF: [u8; 8] = [0x05, 0, 0xff, 0xff, 0, 0, 0, 0];
    const CALL_HELPER_7: [u8; 8] = [0x85, 0, 0, 0, 7, 0, 0, 0];

    fn call(immediate: i32) -> [u8; 8] {
        let [a, b, c, d] = immediate.to_le_bytes();
        [0x85, 0x10, 0, 0, a, b, c, d]
    }

    /// A load of a 64-bit value, its second half shaped like a jump to itself.
    fn address(immediate: i32) -> [[u8; 8]; 2] {
        let [a, b, c, d] = immediate.to_le_bytes();
        [[0x18, 0x41, 0, 0, a, b, c, d], JUMP_TO_ITSELF]
    }

    fn functions(list: &[(&str, &str, u64, u64)]) -> Code {
        let functions =
            list.iter().map(|(name, section, start, end)| Function::new(name, section, *start, *end));
        Code { functions: functions.collect(), ..Code::default() }
    }

    fn calls_of(code: &Code) -> Vec<String> {
        let name = |index: usize| code.functions[index].name.as_str();
        let describe = |call: &Call| match &call.callee {
            Callee::Function(index) => format!("{} -> {}", name(call.caller), name(*index)),
            Callee::Undefined(undefined) => format!("{} -> undefined {undefined}", name(call.caller)),
        };
        code.calls.iter().map(describe).collect()
    }

    #[test]
    fn calls_within_a_section_need_no_relocation() {
        let mut code = functions(&[("a", ".text", 0, 16), ("b", ".text", 16, 24)]);
        code.add_section(".text", &[call(1), EXIT, call(-3)].concat(), true, &HashMap::new());
        assert_eq!(calls_of(&code), ["a -> b", "b -> a"]);
    }

    #[test]
    fn a_call_of_another_section_counts_from_its_symbol() {
        let mut code =
            functions(&[("program", "tracepoint", 0, 16), ("a", ".text", 0, 8), ("b", ".text", 8, 16)]);
        let text = |offset| Referent::Defined { section: ".text".to_owned(), offset };
        // The section's symbol with a distance, and the function's own.
        let relocated = HashMap::from([(0, text(0)), (8, text(8))]);
        code.add_section("tracepoint", &[call(0), call(-1)].concat(), true, &relocated);
        assert_eq!(calls_of(&code), ["program -> b", "program -> b"]);
    }

    #[test]
    fn a_callbacks_address_counts_as_a_call() {
        let mut code = functions(&[("program", "tracepoint", 0, 24), ("callback", ".text", 8, 16)]);
        let relocated = HashMap::from([(0, Referent::Defined { section: ".text".to_owned(), offset: 0 })]);
        let [low, high] = address(8);
        code.add_section("tracepoint", &[low, high, EXIT].concat(), true, &relocated);
        assert_eq!(calls_of(&code), ["program -> callback"]);
    }

    #[test]
    fn a_call_of_a_symbol_outside_of_the_object_keeps_its_name() {
        let mut code = functions(&[("program", "tracepoint", 0, 8)]);
        let relocated = HashMap::from([(0, Referent::Undefined("rust_begin_unwind".to_owned()))]);
        code.add_section("tracepoint", &call(-1), true, &relocated);
        assert_eq!(calls_of(&code), ["program -> undefined rust_begin_unwind"]);
    }

    #[test]
    fn helpers_maps_and_constants_are_no_calls() {
        let mut code = functions(&[("program", "tracepoint", 0, 48)]);
        let relocated = HashMap::from([(8, Referent::Defined { section: "maps".to_owned(), offset: 0 })]);
        let ([a, b], [c, d]) = (address(0), address(0));
        code.add_section("tracepoint", &[CALL_HELPER_7, a, b, c, d, EXIT].concat(), true, &relocated);
        assert_eq!(code.calls, []);
        assert_eq!(code.endless_loops, [], "the second half of a load is no jump");
    }

    #[test]
    fn a_jump_to_itself_is_an_endless_loop() {
        let mut code = functions(&[("program", "tracepoint", 0, 16)]);
        code.add_section("tracepoint", &[EXIT, JUMP_TO_ITSELF].concat(), true, &HashMap::new());
        assert_eq!(code.endless_loops, [EndlessLoop { function: 0, offset: 8 }]);
    }

    #[test]
    fn back_edges_are_reported_with_their_function() {
        const BACK: [u8; 8] = [0x15, 0, 0xfe, 0xff, 0, 0, 0, 0];
        const OVER_ONE: [u8; 8] = [0x05, 0, 1, 0, 0, 0, 0, 0];
        let mut code =
            functions(&[("a", "tp_btf/a", 0, 8), ("b", "tp_btf/b", 0, 8), ("c", "tp_btf/b", 8, 40)]);
        let bytes = [EXIT, OVER_ONE, CALL_HELPER_7, BACK, EXIT].concat();
        code.add_section("tp_btf/b", &bytes, true, &HashMap::new());
        assert_eq!(code.back_edges, [(2, BackEdge { from: 16, to: 24 })]);
    }

    #[test]
    fn big_endian_objects_are_read_too() {
        let mut code = functions(&[("a", ".text", 0, 16), ("b", ".text", 16, 24)]);
        code.add_section(
            ".text",
            &[[0x85, 0x01, 0, 0, 0, 0, 0, 1], EXIT, EXIT].concat(),
            false,
            &HashMap::new(),
        );
        assert_eq!(calls_of(&code), ["a -> b"]);
    }

    #[test]
    fn programs_are_found_through_functions_that_call_each_other() {
        let mut code = functions(&[
            ("one", "tp_btf/one", 0, 8),
            ("two", "tp_btf/two", 0, 8),
            ("outer", ".text", 0, 8),
            ("inner", ".text", 8, 16),
        ]);
        let edge = |caller, callee| Call { caller, callee: Callee::Function(callee), offset: 0 };
        code.calls = vec![edge(2, 3), edge(3, 2), edge(0, 2)];
        let programs: Vec<_> =
            code.programs_that_reach(&code.functions[3]).map(|f| f.name.as_str()).collect();
        assert_eq!(programs, ["one"]);
        let programs: Vec<_> =
            code.programs_that_reach(&code.functions[1]).map(|f| f.name.as_str()).collect();
        assert_eq!(programs, ["two"]);
    }
}
