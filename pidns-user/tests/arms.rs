//! Loads and runs the parts of the eBPF programs that only older kernels need on this kernel. They must see the same
//! events.

use std::{
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use pidns_ebpf::abi::{
    DOUBLE_HOOKS, Namespaced, Record, Via,
    symbols::{ABSENT, OFFSETS},
};
use pidns_user::kernel::{
    hooks::{HookForm, HookSet},
    layout::Layout,
    load::{Settings, load_with},
};

/// The events of a run of `unshare --fork --pid true`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    create_via: Option<u32>,
    init_pids: Vec<u32>,
    init_status: Option<u32>,
    exits: usize,
}

/// Loading two objects at the same time would only take longer. The tests recognize their own processes by the parent.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn observe(change: impl FnOnce(&mut Layout)) -> Seen {
    let _alone = alone();
    let (loaded, mut reader, _waker) =
        load_with(&Settings { hooks: HookSet::Tracepoint, ..Settings::everything() }, change)
            .expect("load the eBPF object");
    for (hook, form) in &loaded.hooks {
        assert!(
            hook.is_function() || matches!(form, HookForm::On(_)),
            "{} does not attach: {form}",
            hook.name
        );
    }
    let mut child = Command::new("unshare").args(["--fork", "--pid", "true"]).spawn().expect("start unshare");
    let unshare = child.id();
    assert!(child.wait().expect("wait for the child").success());

    let mut seen = Seen::default();
    let mut init = 0;
    let deadline = Instant::now() + Duration::from_secs(5);
    while seen.exits < 2 && Instant::now() < deadline {
        reader.wait(Duration::from_millis(50)).expect("poll");
        reader.drain(|_, record| match record {
            Record::NamespaceCreate(Namespaced { process: Some(creator), body, .. })
                if creator.part.pid == unshare =>
            {
                seen.create_via = Some(body.via);
            }
            Record::NamespaceInit(Namespaced { process: Some(process), .. })
                if process.part.parent_pid == unshare =>
            {
                init = process.part.pid;
                seen.init_pids = process.pids().skip(1).collect();
            }
            Record::NamespaceInitExit(Namespaced { process: Some(process), body, .. })
                if process.part.pid == init =>
            {
                seen.init_status = Some(body.wait_status);
            }
            Record::ProcessExit { process, .. } if [init, unshare].contains(&process.part.pid) => {
                seen.exits += 1
            }
            _ => {}
        });
    }
    assert_eq!(reader.malformed(), 0, "malformed records");
    let second_runs = loaded.stats.read().expect("the counters").second_runs;
    assert_eq!(
        second_runs, [0; DOUBLE_HOOKS],
        "the kernel skipped no first program, and no second one repeated its work"
    );
    seen
}

fn expected() -> Seen {
    Seen { create_via: Some(Via::Unshare as u32), init_pids: vec![1], init_status: Some(0), exits: 2 }
}

#[test]
fn the_parts_for_this_kernel_see_all_events() {
    assert_eq!(observe(|_| {}), expected());
}

#[test]
fn process_exits_are_found_by_the_count_of_live_threads() {
    assert_eq!(observe(|layout| layout.exit_has_group_dead = false), expected());
}

#[test]
fn pids_are_copied_if_they_cannot_be_loaded() {
    assert_eq!(observe(|layout| layout.probe_numbers = true), expected());
}

#[test]
fn all_events_are_seen_without_namespace_ids() {
    let unnumbered = |layout: &mut Layout| {
        for (symbol, value) in &mut layout.offsets {
            if *symbol == "NS_COMMON_ID" {
                *value = ABSENT;
            }
        }
    };
    assert_eq!(observe(unnumbered), expected());
}

#[test]
fn all_other_events_are_seen_without_reasons_of_refusals() {
    let silent = |layout: &mut Layout| {
        for (symbol, value) in &mut layout.offsets {
            let is_optional = OFFSETS.iter().any(|offset| offset.symbol == *symbol && offset.optional);
            let explains =
                ["UCOUNT", "USERNS_UCOUNT", "XA_NODE", "PIDNS_PIDS", "PID_TASKS", "TASK_PID_LINKS"];
            if is_optional && explains.iter().any(|part| symbol.starts_with(part)) {
                *value = ABSENT;
            }
        }
    };
    assert_eq!(observe(silent), expected());
}

#[test]
fn four_byte_limits_of_namespaces_are_read() {
    let narrow = |layout: &mut Layout| {
        for (symbol, value) in &mut layout.offsets {
            if *symbol == "UCOUNT_SIZE" {
                *value = 4;
            }
        }
    };
    assert_eq!(observe(narrow), expected());
}

#[test]
fn registers_are_found_on_the_stack_without_a_helper() {
    assert_eq!(observe(|layout| layout.have_task_pt_regs = false), expected());
}

#[test]
fn a_second_program_does_not_change_the_state_of_the_first() {
    assert_eq!(observe(|layout| layout.preemptible_tracepoints = true), expected());
}
