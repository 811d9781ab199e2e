//! The arms of the kernel side that only older kernels need, loaded and run on this one: they must see the same.

use std::{
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use pidns_ebpf::abi::{
    MOMENTS, Namespaced, Record, Via,
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

/// Two kernel sides at once would only cost time; the machine's other processes are distinguished by their parents.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn observe(change: impl FnOnce(&mut Layout)) -> Seen {
    let _alone = alone();
    let (loaded, mut reader, _waker) =
        load_with(&Settings { hooks: HookSet::Tracepoint, ..Settings::everything() }, change)
            .expect("the kernel side loads");
    for (hook, form) in &loaded.hooks {
        assert!(
            hook.is_function() || matches!(form, HookForm::On(_)),
            "{} does not attach: {form}",
            hook.name
        );
    }
    let mut child =
        Command::new("unshare").args(["--fork", "--pid", "true"]).spawn().expect("unshare is there");
    let unshare = child.id();
    assert!(child.wait().expect("a child").success());

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
    assert_eq!(reader.malformed(), 0, "records that cannot be decoded");
    let second_runs = loaded.stats.read().expect("the counters").second_runs;
    assert_eq!(second_runs, [0; MOMENTS], "no first program was left out, no second one did its work again");
    seen
}

fn expected() -> Seen {
    Seen { create_via: Some(Via::Unshare as u32), init_pids: vec![1], init_status: Some(0), exits: 2 }
}

#[test]
fn this_kernels_own_arms_see_it_all() {
    assert_eq!(observe(|_| {}), expected());
}

#[test]
fn exits_are_found_by_live_threads_where_the_hook_does_not_report_them() {
    assert_eq!(observe(|layout| layout.exit_has_group_dead = false), expected());
}

#[test]
fn pids_are_copied_where_they_may_not_be_loaded() {
    assert_eq!(observe(|layout| layout.probe_numbers = true), expected());
}

#[test]
fn all_is_seen_where_the_kernel_does_not_number_namespaces() {
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
fn without_the_reason_of_a_refusal_all_else_is_seen() {
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
fn limits_of_namespaces_are_read_where_they_have_four_bytes() {
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
fn registers_are_found_on_the_stack_where_no_helper_gives_them() {
    assert_eq!(observe(|layout| layout.have_task_pt_regs = false), expected());
}

#[test]
fn a_second_program_leaves_the_state_of_the_first_alone() {
    assert_eq!(observe(|layout| layout.preemptible_tracepoints = true), expected());
}
