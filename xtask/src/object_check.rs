//! Does the eBPF object keep what a verifier refuses: a panic, or a loop that old ones do not take?
//!
//! rustc puts a panic wherever it cannot prove that an index is in bounds or an `Option` is some. BPF has nothing to
//! panic with: what is left is a call that never returns, or an endless loop, and the verifier refuses a program that
//! holds either ("last insn is not an exit or jmp", "infinite loop detected"), at load, naming neither the panic nor
//! its place. The object still knows both.
//!
//! Loops that fall through into their heads are found in [`back_edges`].

mod back_edges;
mod calls;
mod instruction;
mod lines;
mod names;

use std::{fmt, fs, path::Path};

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _};

use self::{
    back_edges::BackEdge,
    calls::{Callee, Code, Function},
    instruction::INSTRUCTION,
    lines::{Line, Lines},
};

/// Fails with the places of the panics, or of the loops that old verifiers refuse, if the object has any.
pub(crate) fn check(path: &Path) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("cannot read the eBPF object {}", path.display()))?;
    let (code, lines) =
        read(&bytes).with_context(|| format!("cannot check the eBPF object {}", path.display()))?;
    let panics = panics_in(&code, &lines);
    if !panics.is_empty() {
        bail!(
            "{} can panic, and the kernel's verifier refuses programs that can:\n{}\n\
             Handle the case (`get`, `checked_div`), or show the compiler that there is none (a mask, a comparison).",
            path.display(),
            list(&panics)
        );
    }
    let loops = loops_in(&code, &lines);
    if !loops.is_empty() {
        bail!(
            "{} has loops whose end falls through into their head, and the verifiers of Linux before 6.4 refuse those \
             (\"back-edge from insn\"):\n{}\n\
             LLVM lays them out so unless it is asked to leave the blocks where they are: pidns-ebpf/build.rs hands the \
             linker -disable-block-placement; does it still, and does bpf-linker still take it? Else write the loop so \
             that its condition stands at its end.",
            path.display(),
            list(&loops)
        );
    }
    Ok(())
}

fn list(findings: &[impl fmt::Display]) -> String {
    let lines: Vec<_> = findings.iter().map(|finding| format!("  {finding}")).collect();
    lines.join("\n")
}

/// A panic, and where it comes from.
#[derive(Debug, PartialEq, Eq)]
struct Panic {
    /// The function of `core` that panics.
    what: String,
    /// The function that can reach it, and its source line as far as the object has it.
    at: Option<Site>,
    /// The programs that the function is part of.
    programs: Vec<Program>,
}

#[derive(Debug, PartialEq, Eq)]
struct Site {
    function: String,
    line: Option<Line>,
}

/// A function that the kernel loads, and the section that says where it attaches.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    name: String,
    section: String,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, at, programs } = self;
        write!(f, "{what}")?;
        match at {
            Some(Site { function, line: Some(line) }) => write!(f, " from {function} {line}")?,
            Some(Site { function, line: None }) => write!(f, " from {function}")?,
            None => write!(f, " is in the object, from nowhere that this check can see")?,
        }
        write_programs(f, programs)
    }
}

fn write_programs(f: &mut fmt::Formatter<'_>, programs: &[Program]) -> fmt::Result {
    if programs.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = programs.iter().map(|p| format!("{} [{}]", p.name, p.section)).collect();
    write!(f, "\n      in the program{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
}

/// A loop whose end falls through into its head.
#[derive(Debug, PartialEq, Eq)]
struct Loop {
    /// Instructions of the function, as the verifier counts those of a program.
    from: u64,
    to: u64,
    /// The source line of the end.
    at: Site,
    programs: Vec<Program>,
}

impl fmt::Display for Loop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, at: Site { function, line }, programs } = self;
        write!(f, "from insn {from} to {to} of {function}")?;
        if let Some(line) = line {
            write!(f, " {line}")?;
        }
        write_programs(f, programs)
    }
}

fn read(bytes: &[u8]) -> Result<(Code, Lines)> {
    if bytes.is_empty() {
        bail!("it is empty: was it built with AYA_BUILD_SKIP?");
    }
    let file = object::File::parse(bytes).context("not an object file")?;
    let code = Code::read(&file)?;
    let section = |name| file.section_by_name(name).and_then(|section| section.data().ok());
    // Line numbers are a help, not a condition.
    let lines =
        Lines::read(section(".BTF"), section(".BTF.ext"), file.is_little_endian()).unwrap_or_default();
    Ok((code, lines))
}

fn site(lines: &Lines, function: &Function, offset: u64) -> Site {
    Site {
        function: names::readable(&function.name),
        line: lines.of(&function.section, function.start, offset),
    }
}

fn programs(code: &Code, function: &Function) -> Vec<Program> {
    code.programs_that_reach(function)
        .map(|program| Program { name: names::readable(&program.name), section: program.section.clone() })
        .collect()
}

fn loops_in(code: &Code, lines: &Lines) -> Vec<Loop> {
    let number = |function: &Function, offset| (offset - function.start) / INSTRUCTION as u64;
    let found = |(index, edge): &(usize, BackEdge)| {
        let function = &code.functions[*index];
        Loop {
            from: number(function, edge.from),
            to: number(function, edge.to),
            at: site(lines, function, edge.from),
            programs: programs(code, function),
        }
    };
    code.back_edges.iter().map(found).collect()
}

fn panics_in(code: &Code, lines: &Lines) -> Vec<Panic> {
    let panic = |what, function: &Function, offset| Panic {
        what,
        at: Some(site(lines, function, offset)),
        programs: programs(code, function),
    };

    let mut panics = Vec::new();
    for call in &code.calls {
        let callee = match &call.callee {
            Callee::Function(index) => &code.functions[*index].name,
            Callee::Undefined(name) => name,
        };
        let caller = &code.functions[call.caller];
        // A panic calls others on its way; only where it begins is of interest.
        if names::is_panic(callee) && !names::is_panic(&caller.name) {
            panics.push(panic(names::readable(callee), caller, call.offset));
        }
    }
    for endless in &code.endless_loops {
        let function = &code.functions[endless.function];
        if !names::is_panic(&function.name) {
            panics.push(panic("an endless loop (an inlined panic)".to_owned(), function, endless.offset));
        }
    }
    if panics.is_empty() {
        // Reached in a way that the calls do not show.
        let uncalled = code.functions.iter().filter(|function| names::is_panic(&function.name));
        panics.extend(uncalled.map(|function| Panic {
            what: names::readable(&function.name),
            at: None,
            programs: Vec::new(),
        }));
    }
    panics
}

#[cfg(test)]
mod tests {
    use super::*;

    /// fixtures/panics.rs, as bpf-linker writes it.
    const PANICS: &[u8] = include_bytes!("../fixtures/panics.o");
    const SOURCE: &str = include_str!("../fixtures/panics.rs");

    fn fixture() -> Vec<Panic> {
        let (code, lines) = read(PANICS).expect("the fixture is an object");
        panics_in(&code, &lines)
    }

    /// The panics of one program, as (function of core, its caller, marker of the source line).
    fn panics_of(program: &str) -> Vec<(String, String, Option<&'static str>)> {
        fixture()
            .into_iter()
            .filter(|panic| panic.programs.iter().any(|p| p.name == program))
            .map(|panic| {
                let site = panic.at.expect("each of these has a caller");
                (panic.what, site.function, site.line.and_then(|line| marker(&line)))
            })
            .collect()
    }

    /// The comment at the end of the source line.
    fn marker(line: &Line) -> Option<&'static str> {
        let index = usize::try_from(line.number).ok()?.checked_sub(1)?;
        Some(SOURCE.lines().nth(index)?.split_once("// ")?.1)
    }

    #[test]
    fn a_bounds_check_is_found_in_the_program_that_keeps_it() {
        assert_eq!(
            panics_of("bounds"),
            [("core::panicking::panic_bounds_check".to_owned(), "bounds".to_owned(), Some("index"))]
        );
    }

    #[test]
    fn a_panic_in_a_helper_is_traced_to_the_programs_that_call_it() {
        let panics = panics_of("sliced");
        assert!(
            panics.contains(&(
                "core::panicking::panic_bounds_check".to_owned(),
                "panics::helper".to_owned(),
                Some("index in helper")
            )),
            "{panics:#?}"
        );
        assert!(
            panics.iter().any(|(what, caller, line)| what.contains("slice_index_fail")
                && caller == "sliced"
                && *line == Some("slice")),
            "{panics:#?}"
        );
    }

    #[test]
    fn an_unwrap_is_found_near_its_line() {
        let panics = fixture();
        let unwrap = panics.iter().find(|panic| panic.what.contains("unwrap")).expect("unwrapped unwraps");
        // One line off: the panic's own line is in core, and the one before it is the function's end.
        assert_eq!(
            unwrap.to_string(),
            "core::option::unwrap_failed from unwrapped near ./src/main.rs:48\n      \
             in the program unwrapped [tracepoint]"
        );
    }

    #[test]
    fn an_inlined_panic_is_found_by_its_endless_loop() {
        let panics = panics_of("endless");
        assert_eq!(panics.len(), 1, "{panics:#?}");
        assert!(panics[0].0.contains("endless loop"), "{panics:#?}");
    }

    #[test]
    fn a_program_without_panics_is_not_named() {
        assert_eq!(panics_of("clean"), []);
    }

    #[test]
    fn a_panic_is_printed_with_its_message_place_and_programs() {
        let panics = fixture();
        let helper = panics.iter().find(|panic| panic.programs.len() > 1).expect("two programs share helper");
        assert_eq!(
            helper.to_string(),
            "core::panicking::panic_bounds_check from panics::helper at ./src/main.rs:41\n      \
             in the programs helped [kprobe/helped], sliced [tracepoint]"
        );
    }

    #[test]
    fn a_panic_that_nothing_is_seen_to_call_is_reported_all_the_same() {
        let code = Code {
            functions: vec![Function::new("_ZN4core9panicking9panic_fmt17h0123456789abcdefE", ".text", 0, 8)],
            ..Code::default()
        };
        let panics = panics_in(&code, &Lines::default());
        assert_eq!(panics.len(), 1);
        assert_eq!(panics[0].what, "core::panicking::panic_fmt");
        assert_eq!(panics[0].at, None);
    }

    #[test]
    fn a_stub_is_not_taken_for_a_clean_object() {
        let error = read(b"").expect_err("an empty object");
        assert!(error.to_string().contains("AYA_BUILD_SKIP"), "{error}");
        read(b"not an object").expect_err("no object at all");
    }

    #[test]
    fn a_loop_reads_as_where_and_in_which_programs() {
        let mut code = Code {
            functions: vec![
                Function::new("walk", ".text", 8, 64),
                Function::new("fork", "tp_btf/fork", 0, 64),
            ],
            ..Code::default()
        };
        code.calls.push(calls::Call { caller: 1, callee: Callee::Function(0), offset: 0 });
        code.back_edges.push((0, BackEdge { from: 32, to: 16 }));
        let loops = loops_in(&code, &Lines::default());
        assert_eq!(list(&loops), "  from insn 3 to 1 of walk\n      in the program fork [tp_btf/fork]");
    }
}
