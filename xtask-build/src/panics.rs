//! Finds code that can panic in an eBPF object, and its source line.
//!
//! rustc emits a panic wherever it cannot prove that an index is in bounds or an `Option` is `Some`. An eBPF program
//! has no way to panic: the panic becomes a call that never returns, or an endless loop. The verifier refuses both
//! ("last insn is not an exit or jmp", "infinite loop detected"), but only when the program is loaded, and without
//! naming the place. The object contains the place.

mod calls;
mod lines;

use std::{fmt, fs, path::Path};

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _};

use self::{
    calls::Code,
    lines::{Line, Lines},
};

/// Fails with the places of the panics if the object has any.
pub(crate) fn check(path: &Path) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("cannot read the eBPF object {}", path.display()))?;
    let panics = find(&bytes).with_context(|| format!("cannot check the eBPF object {}", path.display()))?;
    if !panics.is_empty() {
        let list: Vec<_> = panics.iter().map(|panic| format!("  {panic}")).collect();
        bail!(
            "{} can panic, and the kernel's verifier refuses programs that can:\n{}\n\
             Handle the case (`get`, `checked_div`), or show the compiler that there is none (a mask, a comparison).",
            path.display(),
            list.join("\n")
        );
    }
    Ok(())
}

/// A panic and its place.
#[derive(Debug, PartialEq, Eq)]
struct Panic {
    /// The function of `core` that panics.
    what: String,
    /// The function that calls it, and its source line if the object has it.
    at: Option<(String, Option<Line>)>,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, at } = self;
        match at {
            Some((function, Some(line))) => write!(f, "{what} from {function} {line}"),
            Some((function, None)) => write!(f, "{what} from {function}"),
            None => write!(f, "{what} is in the object, but no call of it was found"),
        }
    }
}

fn find(bytes: &[u8]) -> Result<Vec<Panic>> {
    if bytes.is_empty() {
        bail!("it is empty: was it built with AYA_BUILD_SKIP?");
    }
    let file = object::File::parse(bytes).context("not an object file")?;
    let code = Code::read(&file)?;
    let section = |name| file.section_by_name(name).and_then(|section| section.data().ok());
    // Line numbers help, but the check works without them.
    let lines = Lines::read(section(".BTF"), section(".BTF.ext")).unwrap_or_default();
    Ok(panics_in(&code, &lines))
}

fn panics_in(code: &Code, lines: &Lines) -> Vec<Panic> {
    let mut panics = Vec::new();
    for call in &code.calls {
        let caller = &code.functions[call.caller];
        let what = call.callee.as_deref().unwrap_or("an endless loop (an inlined panic)");
        // A panic calls further panic functions. Report only the first call.
        if call.callee.as_deref().is_none_or(is_panic) && !is_panic(&caller.name) {
            let line = lines.of(&caller.section, caller.start, call.offset);
            panics.push(Panic { what: what.to_owned(), at: Some((caller.name.clone(), line)) });
        }
    }
    if panics.is_empty() {
        let uncalled = code.functions.iter().filter(|function| is_panic(&function.name));
        panics.extend(uncalled.map(|function| Panic { what: function.name.clone(), at: None }));
    }
    panics
}

/// Whether the function of this name panics, or is the panic handler.
fn is_panic(name: &str) -> bool {
    // The handler is compiled under this name, regardless of its name in the source.
    name.ends_with("rust_begin_unwind")
        // core::panicking::…, core::option::unwrap_failed, core::slice::index::slice_index_fail, …: core's panicking
        // functions follow this naming.
        || name.strip_prefix("core::").is_some_and(|path| {
            path.split("::").any(|part| part.starts_with("panic") || part.ends_with("_fail") || part.ends_with("_failed"))
        })
}

#[cfg(test)]
mod tests {
    use super::{calls::Function, *};

    /// fixtures/panics.rs, as bpf-linker writes it.
    const PANICS: &[u8] = include_bytes!("../fixtures/panics.o");
    const SOURCE: &str = include_str!("../fixtures/panics.rs");

    fn fixture() -> Vec<Panic> {
        find(PANICS).expect("the fixture is an object")
    }

    /// The panics that a function calls, and the comments at the ends of the source lines.
    fn panics_of(caller: &str) -> Vec<(String, Option<&'static str>)> {
        let calls = fixture().into_iter().filter_map(|panic| Some((panic.what, panic.at?)));
        calls
            .filter(|(_, (function, _))| function == caller)
            .map(|(what, (_, line))| (what, line.and_then(|line| comment(&line))))
            .collect()
    }

    fn comment(line: &Line) -> Option<&'static str> {
        let index = usize::try_from(line.number).ok()?.checked_sub(1)?;
        Some(SOURCE.lines().nth(index)?.split_once("// ")?.1)
    }

    #[test]
    fn a_bounds_check_is_found_in_the_function_that_keeps_it() {
        let bounds_check = |line| [("core::panicking::panic_bounds_check".to_owned(), Some(line))];
        assert_eq!(panics_of("bounds"), bounds_check("index"));
        assert_eq!(panics_of("panics::helper"), bounds_check("index in helper"));
    }

    #[test]
    fn the_range_of_a_slice_is_found() {
        let panics = panics_of("sliced");
        assert!(
            panics.iter().any(|(what, line)| what.contains("slice_index_fail") && *line == Some("slice")),
            "{panics:#?}"
        );
    }

    #[test]
    fn an_unwrap_is_found_near_its_line() {
        let panics = fixture();
        let unwrap = panics.iter().find(|panic| panic.what.contains("unwrap")).expect("unwrapped unwraps");
        // It is one line off: the panic's own line is in core, and the line before it is the end of the function.
        assert_eq!(unwrap.to_string(), "core::option::unwrap_failed from unwrapped near ./src/main.rs:48");
    }

    #[test]
    fn an_inlined_panic_is_found_by_its_endless_loop() {
        let panics = panics_of("endless");
        assert_eq!(panics.len(), 1, "{panics:#?}");
        assert!(panics[0].0.contains("endless loop"), "{panics:#?}");
    }

    #[test]
    fn a_function_without_panics_is_not_reported() {
        assert_eq!(panics_of("clean"), []);
    }

    #[test]
    fn a_panic_without_a_visible_call_is_reported() {
        let name = "core::panicking::panic_fmt".to_owned();
        let function = Function { name: name.clone(), section: ".text".to_owned(), start: 0, end: 8 };
        let code = Code { functions: vec![function], calls: Vec::new() };
        assert_eq!(panics_in(&code, &Lines::default()), [Panic { what: name, at: None }]);
    }

    #[test]
    fn an_empty_object_is_refused() {
        let error = find(b"").expect_err("an empty object");
        assert!(error.to_string().contains("AYA_BUILD_SKIP"), "{error}");
        find(b"not an object").expect_err("no object at all");
    }

    #[test]
    fn cores_ways_to_panic_are_known() {
        for name in [
            "core::option::unwrap_failed",
            "core::option::expect_failed",
            "core::panicking::panic_fmt",
            "core::panicking::panic_const::panic_const_div_by_zero",
            "core::panicking::assert_failed::<u32, u32>",
            "core::slice::index::slice_index_fail",
            "core::slice::index::slice_end_index_len_fail::do_panic::runtime",
            "core::slice::copy_from_slice_impl::len_mismatch_fail",
            "core::cell::panic_already_borrowed",
            "__rustc::rust_begin_unwind",
            "rust_begin_unwind",
        ] {
            assert!(is_panic(name), "{name}");
        }
        for name in ["memcpy", "sched_process_fork", "panics::helper", "pidns_ebpf::emit::count_failed"] {
            assert!(!is_panic(name), "{name}");
        }
    }
}
