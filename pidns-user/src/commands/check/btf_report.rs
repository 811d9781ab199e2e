//! `pidns-trace check --btf FILE`: reports what another kernel allows, as far as its BTF shows.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    process::ExitCode,
};

use pidns_ebpf::abi::symbols::{OFFSETS, SNAPSHOT_OFFSETS, Source};

use super::{CheckReport, Verdict, conclude};
use crate::{
    cli::CheckArgs,
    commands::failure::{Failure, code},
    kernel::{
        btf::{BtfError, Unusable, parse_complete},
        btf_report::{BtfReport, SnapshotReport, Use, btf_report},
        hooks::{HookForm, HookSet},
        layout::{Layout, Missing, SnapshotLayout},
    },
};

/// How much of a file is read to recognise its type.
const HEAD: u64 = 4 << 10;
/// Largest file that is read. No kernel's BTF is nearly as large.
const MAX_BYTES: u64 = 64 << 20;

/// Checks and reports.
pub(super) fn run(file: &Path, args: &CheckArgs) -> Result<ExitCode, Failure> {
    let bytes = read(file).map_err(|error| Failure::File { file: file.to_owned(), error })?;
    let mut report = CheckReport::default();
    let runs = match judge_bytes(&mut report, file, &bytes, args.hooks) {
        Ok(runs) => runs,
        Err(unusable) => {
            let detail = format!("{}: {unusable}", file.display());
            report.put("BTF", Verdict::Missing, detail, Some(unusable.remedy().to_owned()));
            false
        }
    };
    conclude(&report, args, if runs { 0 } else { code::KERNEL })
}

/// Reads the file, or only its beginning if it is not BTF: kernels are large, and devices have no end.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(file)?;
    let mut bytes = Vec::new();
    file.by_ref().take(HEAD).read_to_end(&mut bytes)?;
    if matches!(parse_complete(&bytes), Err(Unusable::CutShort(_))) {
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Reports on these bytes. Returns whether the live stream would run.
fn judge_bytes(report: &mut CheckReport, file: &Path, bytes: &[u8], set: HookSet) -> Result<bool, Unusable> {
    let btf = parse_complete(bytes)?;
    let judgement = btf_report(&btf, set).map_err(Unusable::Damaged)?;
    report.ok("BTF", format!("{}, {} types", file.display(), btf.len() - 1));
    add_layout(report, &judgement);
    add_hooks(report, &judgement);
    add_snapshots(report, &judgement.snapshots);
    report.put(
        "attaching",
        Verdict::Unknown,
        "BTF shows prototypes, but not what the kernel accepts: in lockdown it refuses fentry and fexit, and an \
         inlined function may not be attachable (EBUSY)",
        Some("run pidns-trace check on that kernel".to_owned()),
    );
    Ok(judgement.runs())
}

fn add_layout(report: &mut CheckReport, judgement: &BtfReport) {
    let BtfReport { layout, missing, losses, .. } = judgement;
    if missing.is_empty() {
        let found = OFFSETS.iter().filter(|offset| layout.has(offset.symbol)).count();
        let result: usize = losses.iter().map(|of| of.lacks(&layout.offsets).count()).sum();
        let others = match OFFSETS.len().saturating_sub(found + result) {
            0 => String::new(),
            others => format!(" ({others} more exist on other kernels, in place of some of these)"),
        };
        let all = OFFSETS.len();
        report.ok("layout", format!("{found} of {all} offsets and sizes, all that are needed{others}"));
        add_switches(report, layout);
    } else {
        let foreign = missing
            .iter()
            .any(|error| matches!(error, BtfError::NoField { structure, .. } if structure == "pt_regs"));
        let remedy = if foreign {
            "is that kernel not for x86-64? pidns-trace supports only x86-64"
        } else {
            "this pidns-trace does not know that kernel's structures: please report this, with uname -r"
        };
        let missing = Missing(missing.clone());
        report.put("layout", Verdict::Missing, missing.to_string(), Some(remedy.to_owned()));
    }
    add_losses(report, losses, &layout.offsets);
}

fn add_losses(report: &mut CheckReport, losses: &[&'static Use], offsets: &[(&'static str, u32)]) {
    for of in losses {
        let lacks: Vec<String> = of.lacks(offsets).map(what_it_is).collect();
        report.put(
            of.name,
            Verdict::Gap,
            format!("this kernel's BTF has no {}", lacks.join(", ")),
            Some(format!("lost without it: {}", of.lost)),
        );
    }
}

/// The kernel's name for a symbol of the object.
fn what_it_is(symbol: &str) -> String {
    let offset = OFFSETS.iter().chain(SNAPSHOT_OFFSETS).find(|offset| offset.symbol == symbol);
    match offset.map(|offset| offset.source) {
        Some(Source::Field(structure, field) | Source::Element(structure, field)) => {
            format!("{structure}.{field}")
        }
        Some(Source::Size(structure)) => structure.to_owned(),
        Some(Source::Enumerator(_, name)) => name.to_owned(),
        None => symbol.to_owned(),
    }
}

fn add_switches(report: &mut CheckReport, layout: &Layout) {
    let Layout {
        offsets: _,
        have_task_pt_regs,
        kfuncs,
        preemptible_tracepoints,
        probe_numbers,
        exit_has_group_dead,
    } = layout;
    let registers = if *have_task_pt_regs {
        "is there: a system call's registers come from it"
    } else {
        "is not there (before 5.15): a system call's registers are read off the top of the kernel stack"
    };
    report.ok("bpf_task_pt_regs", registers);
    report.ok(
        "tracepoints",
        if *preemptible_tracepoints {
            "can be preempted (7.0 and later): a second program follows each of the busy ones"
        } else {
            "run with preemption disabled"
        },
    );
    report.ok(
        "bpf_preempt_disable",
        if kfuncs.preempt.is_some() {
            "is there: programs disable preemption themselves"
        } else {
            "is not there (before 6.10): on a preemptible kernel with function hooks, a run can be skipped"
        },
    );
    report.ok(
        "bpf_local_irq_save",
        if kfuncs.irq.is_some() {
            "is there: a task whose time slice ends in a program is preempted after it, not in it"
        } else {
            "is not there (before 6.14): a task whose time slice ends in a program can be preempted in it"
        },
    );
    let numbers = if *probe_numbers {
        "has a stated length (5.10): copied by helper"
    } else {
        "has no stated length: loaded through the typed pointer"
    };
    report.ok("pid.numbers", numbers);
    let group_dead = if *exit_has_group_dead {
        "sched_process_exit passes it"
    } else {
        "sched_process_exit does not pass it (before 6.16): signal->live shows which thread ends last"
    };
    report.ok("group_dead", group_dead);
}

/// Reports on the task iterator. The live stream does not need it.
fn add_snapshots(report: &mut CheckReport, judgement: &SnapshotReport) {
    let SnapshotReport { layout, missing, losses, has_files } = judgement;
    if missing.is_empty() {
        let all = SnapshotLayout::wanted().count();
        let found = SnapshotLayout::wanted().filter(|offset| layout.has(offset.symbol)).count();
        let detail =
            format!("the task iterator is there, with {found} of {all} offsets and sizes, all that it needs");
        report.ok("snapshots", detail);
    } else {
        let missing = Missing(missing.clone());
        let remedy = "tree, ps and pid read /proc instead of the kernel's task iterator";
        report.put("snapshots", Verdict::Gap, missing.to_string(), Some(remedy.to_owned()));
    }
    if *has_files && layout.has_holders() && missing.is_empty() {
        report.ok("holders", "the iterator of open files is there: it finds the holders of namespaces");
    } else {
        let detail =
            if *has_files { "it needs the rest of its layout" } else { "there is no iterator of open files" };
        report.put("holders", Verdict::Gap, detail, Some(super::WITHOUT_HOLDERS.to_owned()));
    }
    add_losses(report, losses, &layout.offsets);
}

fn add_hooks(report: &mut CheckReport, judgement: &BtfReport) {
    for (hook, form) in &judgement.hooks {
        match form {
            HookForm::On(_) => report.ok(hook.name, format!("would use {form}: {}", hook.shows)),
            HookForm::Unneeded => {
                report.ok(
                    hook.name,
                    format!("{form}; would use tp_btf if the kernel refuses one of these hooks"),
                );
            }
            HookForm::Off(_) => {
                let fatal = judgement.is_fatal(hook, form);
                let (verdict, remedy) = if fatal {
                    (Verdict::Missing, "the live stream does not run without it".to_owned())
                } else {
                    (Verdict::Gap, hook.loss())
                };
                report.put(hook.name, verdict, form.to_string(), Some(remedy));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::btf::draft::{Cell, Draft};

    /// An extract of a kernel's BTF, changed.
    fn judged(change: impl FnOnce(&mut Draft), set: HookSet) -> (CheckReport, Result<bool, Unusable>) {
        let bytes = include_bytes!("../../../tests/btf/6.18.15.btf");
        let mut draft = parse_complete(bytes).expect("a whole extract").to_draft().expect("a draft");
        change(&mut draft);
        let mut report = CheckReport::default();
        let runs = judge_bytes(&mut report, Path::new("file"), &draft.write(), set);
        (report, runs)
    }

    fn line(report: &CheckReport, what: &str) -> (Verdict, String, String) {
        let line = report.lines.iter().find(|line| line.what == what);
        let line = line.unwrap_or_else(|| panic!("no line {what}: {report:#?}"));
        (line.verdict, line.detail.clone(), line.remedy.clone().unwrap_or_default())
    }

    #[test]
    fn complete_kernel_has_no_gap() {
        let (report, runs) = judged(|_| {}, HookSet::Auto);
        assert_eq!(runs, Ok(true));
        let gaps: Vec<_> = report.lines.iter().filter(|line| line.verdict != Verdict::Ok).collect();
        assert!(matches!(gaps[..], [line] if line.what == "attaching"), "{gaps:#?}");
        assert!(line(&report, "release_task").1.starts_with("would use fentry: "));
        assert!(line(&report, "sys_exit").1.starts_with("off: not needed"));
    }

    #[test]
    fn fallback_replaces_missing_function_hooks() {
        let (report, runs) = judged(|_| {}, HookSet::Tracepoint);
        assert_eq!(runs, Ok(true));
        assert_eq!(line(&report, "release_task").0, Verdict::Gap);
        assert!(line(&report, "sys_exit").1.starts_with("would use tp_btf"));
    }

    #[test]
    fn missing_member_is_reported_with_its_consequence() {
        let lose = |name: &'static str| {
            move |draft: &mut Draft| {
                for row in draft.types.iter_mut().flat_map(|entry| &mut entry.rows) {
                    if row.first() == Some(&Cell::Name(name.to_owned())) {
                        row[0] = Cell::Name(format!("{name}_2"));
                    }
                }
            }
        };
        let (report, runs) = judged(lose("ns_id"), HookSet::Auto);
        assert_eq!(runs, Ok(true));
        let (verdict, detail, remedy) = line(&report, "kernel_id");
        assert_eq!((verdict, detail.as_str()), (Verdict::Gap, "this kernel's BTF has no ns_common.ns_id"));
        assert!(remedy.contains("never reused"), "{remedy}");

        let (report, runs) = judged(lose("start_boottime"), HookSet::Auto);
        assert_eq!(runs, Ok(false));
        let (verdict, detail, remedy) = line(&report, "layout");
        assert_eq!(verdict, Verdict::Missing);
        assert!(detail.contains("start_boottime") && remedy.contains("report"), "{detail}: {remedy}");

        let (report, runs) = judged(lose("dfl_cgrp"), HookSet::Auto);
        assert_eq!(runs, Ok(true));
        let (verdict, detail, remedy) = line(&report, "cgroup id");
        assert_eq!((verdict, detail.as_str()), (Verdict::Gap, "this kernel's BTF has no css_set.dfl_cgrp"));
        assert!(remedy.contains("in snapshots"), "{remedy}");
        assert_eq!(line(&report, "snapshots").0, Verdict::Ok);

        let (report, runs) = judged(lose("ptrace"), HookSet::Auto);
        assert_eq!(runs, Ok(true), "the stream needs no snapshot");
        let (verdict, detail, remedy) = line(&report, "snapshots");
        assert_eq!(verdict, Verdict::Gap);
        assert!(detail.contains("ptrace") && remedy.contains("/proc"), "{detail}: {remedy}");

        let (report, _) = judged(lose("orig_ax"), HookSet::Auto);
        assert!(line(&report, "layout").2.contains("x86-64"));
    }

    #[test]
    fn absent_function_is_fatal_with_hooks_function() {
        let lose = |draft: &mut Draft| {
            for entry in draft.types.iter_mut().filter(|entry| entry.name == "ksys_unshare") {
                entry.name.push('2');
            }
        };
        let (report, runs) = judged(lose, HookSet::Auto);
        assert_eq!(runs, Ok(true));
        assert!(line(&report, "kernel_clone").1.contains("only together with ksys_unshare"));
        assert_eq!(line(&report, "pidns_install").0, Verdict::Ok, "the other group is complete");
        assert!(line(&report, "sys_exit").1.starts_with("would use tp_btf"));
        let (report, runs) = judged(lose, HookSet::Function);
        assert_eq!(runs, Ok(false));
        assert_eq!(line(&report, "ksys_unshare").0, Verdict::Missing);
    }

    #[test]
    fn only_the_beginning_of_an_endless_file_is_read() {
        let bytes = read(Path::new("/dev/zero")).expect("zeros");
        assert!(bytes.len() as u64 <= HEAD, "{} bytes", bytes.len());
        assert!(matches!(parse_complete(&bytes), Err(Unusable::Damaged(BtfError::Foreign(_)))));
    }
}
