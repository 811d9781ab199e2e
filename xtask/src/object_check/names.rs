//! Names of functions: readable, and whether they panic.

/// Whether a function of this name is a panic, or its handler.
pub(super) fn is_panic(symbol: &str) -> bool {
    let path = segments(symbol);
    let Some((function, parents)) = path.split_last() else {
        return false;
    };
    // core::panicking::…, core::option::unwrap_failed, core::option::expect_failed, core::slice::index::…_fail,
    // core::slice::copy_from_slice_impl::len_mismatch_fail, …: it is core's custom to name them so.
    let in_core = parents.first().is_some_and(|root| root == "core");
    // The handler is compiled under this name, whatever it is called in the source.
    function == "rust_begin_unwind"
        || function.starts_with("panic")
        || (in_core
            && (parents.iter().any(|parent| parent == "panicking")
                || function.ends_with("_fail")
                || function.ends_with("_failed")))
}

/// The path that a mangled symbol stands for, without generics, closures and hashes; other symbols stay as they are.
pub(super) fn readable(symbol: &str) -> String {
    segments(symbol).join("::")
}

fn segments(symbol: &str) -> Vec<String> {
    let path = if let Some(mangled) = symbol.strip_prefix("_ZN") {
        legacy(mangled)
    } else if let Some(mangled) = symbol.strip_prefix("_R") {
        v0(mangled)
    } else {
        Vec::new()
    };
    if path.is_empty() { vec![symbol.to_owned()] } else { path }
}

/// `4core9panicking9panic_fmt17h0123456789abcdefE`: lengths and names, the last of which is a hash.
fn legacy(mangled: &str) -> Vec<String> {
    let mut path = Vec::new();
    let mut rest = mangled;
    while let Some((name, after)) = length(rest).and_then(|(length, text)| text.split_at_checked(length)) {
        path.push(name.to_owned());
        rest = after;
    }
    path.pop_if(|name| is_hash(name));
    path
}

fn is_hash(name: &str) -> bool {
    name.len() == 17 && name.starts_with('h') && name.bytes().skip(1).all(|byte| byte.is_ascii_hexdigit())
}

/// `NvNtCsbfX8Qb9dUVx_4core9panicking9panic_fmt`: the identifiers, in order, without the grammar around them.
fn v0(mangled: &str) -> Vec<String> {
    let mut path = Vec::new();
    let mut rest = mangled;
    while let Some(tag) = rest.chars().next() {
        let after = match tag {
            '1'..='9' => length(rest).and_then(|(length, text)| {
                // Between the length and a name that begins with a digit or an underscore there is one more.
                let text = text.strip_prefix('_').unwrap_or(text);
                let (name, after) = text.split_at_checked(length)?;
                path.push(name.to_owned());
                Some(after)
            }),
            // A disambiguator, a back reference, a constant: digits and letters up to an underscore.
            's' | 'B' | 'K' => rest.split_once('_').map(|(_number, after)| after),
            // A nested name, and the namespace that it is in.
            'N' => rest.get(2..),
            // What LLVM appends to a copy.
            '.' => None,
            _ => rest.get(tag.len_utf8()..),
        };
        match after {
            Some(after) => rest = after,
            None => break,
        }
    }
    path
}

/// The number that the text starts with, and what comes after it.
fn length(text: &str) -> Option<(usize, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::{is_panic, readable};

    #[test]
    fn both_manglings_are_read() {
        assert_eq!(
            readable("_RNvNtCsbfX8Qb9dUVx_4core9panicking18panic_bounds_check"),
            "core::panicking::panic_bounds_check"
        );
        assert_eq!(
            readable("_ZN4core9panicking18panic_bounds_check17h0123456789abcdefE"),
            "core::panicking::panic_bounds_check"
        );
    }

    #[test]
    fn generics_and_suffixes_do_not_get_in_the_way() {
        assert_eq!(
            readable("_RINvNtCs1234_4core3ptr13drop_in_placeKj10_EB4_.llvm.123456"),
            "core::ptr::drop_in_place"
        );
        assert_eq!(
            readable("_ZN4core3ptr13drop_in_place17h0123456789abcdefE.llvm.1"),
            "core::ptr::drop_in_place"
        );
    }

    #[test]
    fn names_that_begin_with_an_underscore_are_read() {
        assert_eq!(readable("_RNvCsh8TeVr3nIaU_7___rustc17rust_begin_unwind"), "__rustc::rust_begin_unwind");
        assert_eq!(
            readable("_ZN7__rustc17rust_begin_unwind17h0123456789abcdefE"),
            "__rustc::rust_begin_unwind"
        );
    }

    #[test]
    fn names_that_are_not_mangled_stay() {
        assert_eq!(readable("memcpy"), "memcpy");
        assert_eq!(readable("_R"), "_R");
        assert_eq!(readable("_ZN"), "_ZN");
    }

    #[test]
    fn cut_off_names_are_survived() {
        for symbol in
            ["_RNvNtCsbfX8Qb9dUVx_4core9panic", "_RNvCs", "_ZN4core99x", "_RN", "_R9999999999999999999999a"]
        {
            let _name = readable(symbol);
        }
    }

    #[test]
    fn cores_ways_to_panic_are_known() {
        for symbol in [
            "_RNvNtCsbfX8Qb9dUVx_4core6option13unwrap_failed",
            "_RNvNtCsbfX8Qb9dUVx_4core6result13unwrap_failed",
            "_RNvNtCsbfX8Qb9dUVx_4core6option13expect_failed",
            "_RNvNtCsbfX8Qb9dUVx_4core9panicking5panic",
            "_RNvNtCsbfX8Qb9dUVx_4core9panicking9panic_fmt",
            "_RNvNtNtCsbfX8Qb9dUVx_4core9panicking11panic_const24panic_const_div_by_zero",
            "_RNvNtNtCsbfX8Qb9dUVx_4core5slice5index16slice_index_fail",
            "_ZN4core5slice5index26slice_start_index_len_fail17h0123456789abcdefE",
            "_ZN4core5slice20copy_from_slice_impl17len_mismatch_fail17h0123456789abcdefE",
            "_RNvCsh8TeVr3nIaU_7___rustc17rust_begin_unwind",
            "rust_begin_unwind",
        ] {
            assert!(is_panic(symbol), "{symbol} is {}", readable(symbol));
        }
    }

    #[test]
    fn other_names_are_no_panics() {
        for symbol in [
            "memcpy",
            "sched_process_fork",
            "_RNvCsh8TeVr3nIaU_8panicexp6helper",
            "_RNvNtCsh8TeVr3nIaU_10pidns_ebpf4emit11count_failed",
            "_ZN10pidns_ebpf4emit5chain17h0123456789abcdefE",
        ] {
            assert!(!is_panic(symbol), "{symbol} is {}", readable(symbol));
        }
    }
}
