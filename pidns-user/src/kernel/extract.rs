//! Cuts out the part of a kernel's BTF that pidns-trace reads. With such an extract a test needs neither the kernel nor
//! its complete BTF of several megabytes.

use aya::Endianness;
use pidns_ebpf::abi::symbols::{OFFSETS, SNAPSHOT_OFFSETS, Source};

use super::{
    btf::{Btf, BtfError, Unusable, draft::Wanted, parse_complete},
    hooks::{self, AttachPoints},
    iterator, kfuncs,
    layout::{Layout, SnapshotLayout, TRACEPOINT_GUARD},
};

/// Why no extract was made.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The file is not a kernel's BTF.
    #[error("{0}: {remedy}", remedy = .0.remedy())]
    Unusable(Unusable),
    /// BTF is damaged.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// aya cannot read the extract.
    #[error("aya cannot read the extract")]
    Aya(#[from] aya::BtfError),
    /// The extract and the whole BTF give different answers.
    #[error("the extract and the whole BTF differ in {what}: {extract}, not {all}")]
    Differs {
        /// The question.
        what: String,
        /// The answer of the extract.
        extract: String,
        /// The answer of the whole BTF.
        all: String,
    },
}

/// Cuts a kernel's BTF down to the part that this program reads, and checks that both give the same answers.
pub fn extract(bytes: &[u8]) -> Result<Vec<u8>, ExtractError> {
    let btf = parse_complete(bytes).map_err(ExtractError::Unusable)?;
    let hooks = hooks::all(&Layout::look_up(&btf).0);
    let (functions, tracepoints): (Vec<_>, Vec<_>) = hooks.iter().partition(|hook| hook.is_function());
    let names = |hooks: &[&hooks::Hook]| hooks.iter().map(|hook| hook.name).collect::<Vec<_>>();
    let mut sources: Vec<Source> =
        OFFSETS.iter().chain(SNAPSHOT_OFFSETS).map(|offset| offset.source).collect();
    sources.push(Source::Enumerator("bpf_func_id", "BPF_FUNC_task_pt_regs"));
    let draft = btf.extract(&Wanted {
        sources: &sources,
        tracepoints: &names(&tracepoints),
        functions: &[&names(&functions)[..], &kfuncs::NAMES, &[iterator::FUNCTION, iterator::FILE_FUNCTION]]
            .concat(),
        guards: &[TRACEPOINT_GUARD],
    })?;
    let extract = draft.write();
    aya::Btf::parse(&extract, Endianness::default())?;
    let cut = parse_complete(&extract).map_err(ExtractError::Unusable)?;
    let report = answers(&cut)?.into_iter().zip(answers(&btf)?);
    for ((what, extract), (_, all)) in report {
        if extract != all {
            return Err(ExtractError::Differs { what, extract, all });
        }
    }
    Ok(extract)
}

/// Each question that this program asks of BTF, with the answer.
fn answers(btf: &Btf<'_>) -> Result<Vec<(String, String)>, BtfError> {
    let (layout, missing) = Layout::look_up(btf);
    let mut answers = vec![("what is missing".to_owned(), format!("{missing:?}"))];
    let Layout {
        offsets,
        have_task_pt_regs,
        kfuncs,
        preemptible_tracepoints,
        probe_numbers,
        exit_has_group_dead,
    } = &layout;
    answers.extend(offsets.iter().map(|(symbol, value)| ((*symbol).to_owned(), value.to_string())));
    let (snapshots, missing) = SnapshotLayout::look_up(btf);
    answers.push(("what is missing for snapshots".to_owned(), format!("{missing:?}")));
    let SnapshotLayout { offsets, probe_numbers: _ } = &snapshots;
    answers
        .extend(offsets.iter().map(|(symbol, value)| (format!("{symbol} in snapshots"), value.to_string())));
    let iterators = [iterator::FUNCTION, iterator::FILE_FUNCTION];
    let functions = btf.functions(&iterators)?;
    for iterator in iterators {
        let prototype = functions.get(iterator).map(|(_, prototype)| prototype);
        answers.push((iterator.to_owned(), format!("{prototype:?}")));
    }
    answers.push((
        "the switches".to_owned(),
        format!(
            "{:?}",
            (
                have_task_pt_regs,
                kfuncs.preempt.is_some(),
                kfuncs.irq.is_some(),
                preemptible_tracepoints,
                probe_numbers,
                exit_has_group_dead
            )
        ),
    ));
    for (structure, field) in [("pid", "numbers"), ("task_struct", "comm")] {
        let what = format!("the length of {structure}.{field}");
        answers.push((what, format!("{:?}", btf.array_len(structure, field))));
    }
    let hooks = hooks::all(&layout);
    let points = AttachPoints::of(btf, &hooks)?;
    for hook in &hooks {
        // Type numbers differ in an extract.
        let prototype = points.get(hook).map(|(_, prototype)| prototype);
        let verdict = hook.find(&points).map(|_| ());
        answers.push((hook.name.to_owned(), format!("{prototype:?}, {verdict:?}")));
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernels_extract_is_small_and_an_extract_of_itself() {
        let bytes = std::fs::read(super::super::btf::PATH).expect("the running kernel has BTF");
        let small = extract(&bytes).expect("an extract");
        assert!(small.len() < 16 << 10, "{} bytes", small.len());
        assert_eq!(extract(&small).expect("an extract of an extract"), small);
    }

    #[test]
    fn only_btf_can_be_extracted() {
        let error = extract(b"\x7fELF").expect_err("an ELF file");
        assert!(error.to_string().contains("objcopy"), "{error}");
    }
}
