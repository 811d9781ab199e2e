//! Tests how the program reads BTF, with extracts of many kernels' BTF (tests/btf/). Nothing is loaded or booted.

use pidns_ebpf::abi::symbols::{ABSENT, OFFSETS};
use pidns_user::kernel::{
    btf::{
        Btf, BtfError, Unusable,
        draft::{Cell, Draft, DraftType},
        parse_complete,
    },
    btf_report::btf_report,
    hooks::{self, AttachPoints, Drift, Hook, HookForm, HookSet},
    layout::{Layout, SnapshotLayout},
};
use proptest::prelude::*;

/// The facts that a kernel's BTF must have.
struct Kernel {
    release: &'static str,
    btf: &'static [u8],
    /// The symbols that it lacks, in the order of `for_each_offset!`.
    absent: &'static [&'static str],
    /// What the program cannot do as a result.
    losses: &'static [&'static str],
    /// The offsets of [`FIELDS`].
    offsets: [u32; FIELDS.len()],
    /// The offsets of [`SNAPSHOT_FIELDS`].
    snapshot_offsets: [u32; SNAPSHOT_FIELDS.len()],
    have_task_pt_regs: bool,
    probe_numbers: bool,
    exit_has_group_dead: bool,
}

/// Fields whose offsets another reader of BTF (a script, run once) found too.
const FIELDS: [&str; 16] = [
    "TASK_PID",
    "TASK_COMM",
    "TASK_START_BOOTTIME",
    "TASK_REAL_PARENT",
    "TASK_THREAD_PID",
    "TASK_SIGNAL",
    "TASK_NSPROXY",
    "TASK_CGROUPS",
    "PID_NUMBERS",
    "PIDNS_LEVEL",
    "PIDNS_CHILD_REAPER",
    "PIDNS_USER_NS",
    "PIDNS_NS",
    "NS_COMMON_INUM",
    "USERNS_OWNER",
    "KERNEL_CLONE_SET_TID_SIZE",
];

/// The same for fields that only snapshots need.
const SNAPSHOT_FIELDS: [&str; 6] = [
    "TASK_PTRACE",
    "CSS_SET_DEFAULT_CGROUP",
    "CGROUP_NODE",
    "KERNFS_NODE_ID",
    "TASK_JOBCTL",
    "SIGNAL_SUBREAPER",
];

macro_rules! kernel {
    ($release:literal, $($rest:tt)*) => {
        Kernel { release: $release, btf: include_bytes!(concat!("btf/", $release, ".btf")), $($rest)* }
    };
}

/// A kernel with everything that 6.18 added.
macro_rules! modern {
    ($release:literal, $offsets:expr, $snapshot_offsets:expr) => {
        kernel!(
            $release,
            absent: &["USER_PROCESSES", "PROC_NS_TYPE"],
            losses: &[],
            offsets: $offsets,
            snapshot_offsets: $snapshot_offsets,
            have_task_pt_regs: true,
            probe_numbers: false,
            exit_has_group_dead: true,
        )
    };
}

const KERNELS: &[Kernel] = &[
    kernel!(
        "5.10.262",
        absent: &[
            "CRED_UCOUNTS", "UCOUNTS_RLIMIT", "PIDNS_PID_MAX", "NS_COMMON_ID", "NS_COMMON_TYPE",
        ],
        losses: &["pid_max", "kernel_id"],
        offsets: [2232, 2736, 2544, 2248, 2336, 2832, 2824, 3328, 96, 72, 56, 96, 120, 16, 236, 72],
        snapshot_offsets: [40, 120, 248, 104, 2152, 120],
        have_task_pt_regs: false,
        probe_numbers: true,
        exit_has_group_dead: false,
    ),
    kernel!(
        "6.1.192",
        absent: &["USER_PROCESSES", "PIDNS_PID_MAX", "NS_COMMON_ID", "NS_COMMON_TYPE"],
        losses: &["pid_max", "kernel_id"],
        offsets: [2416, 2976, 2784, 2432, 2520, 3072, 3064, 3600, 96, 64, 48, 88, 112, 16, 228, 72],
        snapshot_offsets: [48, 128, 248, 104, 2328, 128],
        have_task_pt_regs: true,
        probe_numbers: false,
        exit_has_group_dead: false,
    ),
    kernel!(
        "6.12.117",
        absent: &["USER_PROCESSES", "PIDNS_PID_MAX", "NS_COMMON_ID", "NS_COMMON_TYPE"],
        losses: &["pid_max", "kernel_id"],
        offsets: [2432, 2976, 2784, 2448, 2536, 3072, 3064, 3584, 112, 64, 48, 88, 112, 16, 204, 80],
        snapshot_offsets: [48, 128, 256, 96, 2344, 128],
        have_task_pt_regs: true,
        probe_numbers: false,
        exit_has_group_dead: false,
    ),
    kernel!(
        "6.16.12",
        absent: &["USER_PROCESSES", "NS_COMMON_ID", "NS_COMMON_TYPE"],
        losses: &["kernel_id"],
        offsets: [2704, 3248, 3056, 2720, 2808, 3344, 3336, 3872, 136, 64, 48, 88, 112, 16, 204, 80],
        snapshot_offsets: [48, 128, 256, 96, 2616, 128],
        have_task_pt_regs: true,
        probe_numbers: false,
        exit_has_group_dead: true,
    ),
    kernel!(
        "6.17.13",
        absent: &["USER_PROCESSES", "NS_COMMON_ID", "NS_COMMON_TYPE"],
        losses: &["kernel_id"],
        offsets: [2704, 3248, 3056, 2720, 2808, 3344, 3336, 3880, 144, 64, 48, 88, 112, 16, 204, 80],
        snapshot_offsets: [48, 128, 256, 96, 2616, 128],
        have_task_pt_regs: true,
        probe_numbers: false,
        exit_has_group_dead: true,
    ),
    modern!(
        "6.18.15",
        [2704, 3248, 3056, 2720, 2808, 3344, 3336, 3880, 144, 64, 48, 88, 112, 24, 204, 80],
        [48, 128, 256, 96, 2616, 128]
    ),
    modern!(
        "6.18.44-minimal",
        [1264, 1752, 1560, 1280, 1368, 1848, 1840, 2376, 144, 64, 48, 88, 112, 24, 204, 80],
        [48, 112, 256, 96, 1176, 128]
    ),
    modern!(
        "6.19.14",
        [2704, 3248, 3056, 2720, 2808, 3344, 3336, 3880, 144, 64, 48, 88, 112, 24, 204, 80],
        [48, 128, 256, 96, 2616, 128]
    ),
    modern!(
        "7.0.13",
        [2736, 3280, 3088, 2752, 2840, 3384, 3376, 3920, 128, 176, 160, 200, 256, 88, 204, 80],
        [48, 128, 256, 96, 2648, 128]
    ),
    modern!(
        "7.1.13",
        [2800, 3336, 3152, 2816, 2904, 3440, 3432, 3984, 128, 176, 160, 200, 256, 88, 204, 80],
        [48, 128, 256, 96, 2712, 128]
    ),
    modern!(
        "7.2.13",
        [2808, 3344, 3160, 2824, 2912, 3448, 3440, 4000, 128, 176, 160, 200, 256, 88, 204, 80],
        [48, 128, 296, 96, 2720, 128]
    ),
    modern!(
        "7.3.4",
        [2872, 3408, 3224, 2888, 2976, 3520, 3512, 4072, 128, 176, 160, 200, 256, 88, 204, 80],
        [48, 128, 296, 96, 2784, 128]
    ),
];

impl Kernel {
    fn named(release: &str) -> &'static Self {
        KERNELS.iter().find(|kernel| kernel.release == release).expect("one of the extracts")
    }

    fn draft(&self) -> Draft {
        parse_complete(self.btf).expect("parse the whole extract").to_draft().expect("read the extract")
    }
}

#[test]
fn every_extract_is_tested() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/btf");
    let files =
        std::fs::read_dir(folder).expect("the extracts").map(|entry| entry.expect("an entry").file_name());
    let mut found: Vec<String> =
        files.filter_map(|name| Some(name.to_str()?.strip_suffix(".btf")?.to_owned())).collect();
    found.sort();
    let mut tested: Vec<_> = KERNELS.iter().map(|kernel| kernel.release).collect();
    tested.sort_unstable();
    assert_eq!(found, tested);
}

#[test]
fn the_layout_of_every_kernel_is_resolved() {
    for Kernel {
        release, btf, absent, offsets, have_task_pt_regs, probe_numbers, exit_has_group_dead, ..
    } in KERNELS
    {
        let btf = parse_complete(btf).unwrap_or_else(|error| panic!("{release}: {error}"));
        let layout = Layout::resolve(&btf).unwrap_or_else(|missing| {
            panic!("{release}: {missing}: if it is new in for_each_offset!, make the extracts anew (tests/btf/README.md)")
        });
        let lacks: Vec<_> =
            layout.offsets.iter().filter(|(_, value)| *value == ABSENT).map(|(symbol, _)| *symbol).collect();
        assert_eq!(lacks, *absent, "{release}: missing symbols");
        for (field, expected) in FIELDS.iter().zip(offsets) {
            let found = layout.offsets.iter().find(|(symbol, _)| symbol == field).map(|(_, value)| value);
            assert_eq!(found, Some(expected), "{release}: {field}");
        }
        assert_eq!(layout.have_task_pt_regs, *have_task_pt_regs, "{release}: bpf_task_pt_regs");
        // A release of Linux added each of these.
        let version = release.split('.').map_while(|part| part.parse().ok()).take(2).collect::<Vec<u32>>();
        assert_eq!(layout.kfuncs.preempt.is_some(), version >= vec![6, 10], "{release}: bpf_preempt_disable");
        assert_eq!(layout.kfuncs.irq.is_some(), version >= vec![6, 14], "{release}: bpf_local_irq_save");
        assert_eq!(layout.preemptible_tracepoints, version >= vec![7, 0], "{release}: tracepoints");
        assert_eq!(
            layout.probe_numbers, *probe_numbers,
            "{release}: whether pid.numbers has a stated length"
        );
        assert_eq!(layout.exit_has_group_dead, *exit_has_group_dead, "{release}: group_dead");
        assert_eq!(btf.array_len("task_struct", "comm"), Ok(16), "{release}: comm");
        assert_eq!(btf.array_len("pid", "numbers"), Ok(u32::from(*probe_numbers)), "{release}: pid.numbers");
        assert_eq!(btf.size("upid"), Ok(16), "{release}: upid");
    }
}

#[test]
fn every_kernel_takes_complete_snapshots_with_the_iterator() {
    for Kernel { release, btf, snapshot_offsets, probe_numbers, .. } in KERNELS {
        let btf = parse_complete(btf).expect("parse the whole extract");
        let snapshots = btf_report(&btf, HookSet::Auto).expect("a judgement").snapshots;
        assert!(snapshots.missing.is_empty() && snapshots.losses.is_empty(), "{release}: {snapshots:#?}");
        assert!(
            snapshots.has_files && snapshots.layout.has_holders(),
            "{release} finds the holders of namespaces"
        );
        let layout = SnapshotLayout::resolve(&btf).expect("a layout");
        assert_eq!(
            layout.probe_numbers, *probe_numbers,
            "{release}: whether pid.numbers has a stated length"
        );
        for (field, expected) in SNAPSHOT_FIELDS.iter().zip(snapshot_offsets) {
            let found = layout.offsets.iter().find(|(symbol, _)| symbol == field).map(|(_, value)| value);
            assert_eq!(found, Some(expected), "{release}: {field}");
        }
    }
}

#[test]
fn every_kernel_has_every_hook_with_the_expected_prototype() {
    for Kernel { release, btf, exit_has_group_dead, .. } in KERNELS {
        let btf = parse_complete(btf).expect("parse the whole extract");
        let layout = Layout::resolve(&btf).expect("a layout");
        let hooks = hooks::all(&layout);
        let points = AttachPoints::of(&btf, &hooks).expect("attach points");
        for hook in &hooks {
            hook.find(&points).unwrap_or_else(|drift| panic!("{release}: {}: {drift}", hook.name));
        }
        let exit = btf.tracepoint("sched_process_exit").expect("the tracepoint").1;
        assert_eq!(exit.arguments.len(), if *exit_has_group_dead { 2 } else { 1 }, "{release}: {exit}");
    }
}

#[test]
fn every_kernel_can_run_every_set_of_hooks() {
    for Kernel { release, btf, losses, .. } in KERNELS {
        let btf = parse_complete(btf).expect("parse the whole extract");
        for set in [HookSet::Auto, HookSet::Function, HookSet::Tracepoint] {
            let judgement = btf_report(&btf, set).expect("a judgement");
            assert!(judgement.runs(), "{release}, {set:?}: {judgement:#?}");
            let lost: Vec<_> = judgement.losses.iter().map(|of| of.name).collect();
            assert_eq!(lost, *losses, "{release}, {set:?}");
            let fallback = judgement.hooks.iter().find(|(hook, _)| hook.name == hooks::SYSCALL_HOOK);
            let (_, form) = fallback.expect("the fallback");
            match set {
                HookSet::Tracepoint => assert!(matches!(form, HookForm::On(_)), "{release}: {form}"),
                _ => assert_eq!(*form, HookForm::Unneeded, "{release}"),
            }
        }
    }
}

/// How the prototype of a hook drifts after a change of the kernel's extract.
fn drift(release: &str, name: &str, change: impl FnOnce(&mut Draft)) -> Option<Drift> {
    let mut draft = Kernel::named(release).draft();
    change(&mut draft);
    let bytes = draft.write();
    let btf = parse_complete(&bytes).expect("parse the changed extract");
    let hooks = hooks::all(&Layout::look_up(&btf).0);
    let points = AttachPoints::of(&btf, &hooks).expect("attach points");
    let is = |hook: &&Hook| hook.name == name;
    hooks.iter().find(is).expect("no hook has this name").find(&points).err()
}

/// The type with this name.
fn entry<'d>(draft: &'d mut Draft, name: &str) -> &'d mut DraftType {
    draft.types.iter_mut().find(|entry| entry.name == name).unwrap_or_else(|| panic!("no type {name}"))
}

/// The index of the type that this one refers to.
fn follow(from: &DraftType) -> usize {
    let Cell::Type(to @ 1..) = from.cell else { panic!("{from:?} refers to nothing") };
    to as usize - 1
}

/// The prototype of a function, or of a tracepoint (through its typedef).
fn prototype<'d>(draft: &'d mut Draft, name: &str) -> &'d mut DraftType {
    const FUNC_PROTO: u32 = 13;
    let mut at = follow(entry(draft, name));
    while draft.types[at].kind != FUNC_PROTO {
        at = follow(&draft.types[at]);
    }
    &mut draft.types[at]
}

#[test]
fn unchanged_prototypes_have_not_drifted() {
    for Kernel { release, .. } in KERNELS {
        for name in ["release_task", "sched_process_fork"] {
            assert_eq!(drift(release, name, |_| {}), None, "{release}: {name}");
        }
    }
}

#[test]
fn a_renamed_function_or_tracepoint_is_missing() {
    let rename = |name: &'static str| move |draft: &mut Draft| entry(draft, name).name.push_str("_2");
    for Kernel { release, .. } in KERNELS {
        assert_eq!(drift(release, "release_task", rename("release_task")), Some(Drift::Missing), "{release}");
        let fork = drift(release, "sched_process_fork", rename("btf_trace_sched_process_fork"));
        assert_eq!(fork, Some(Drift::Missing), "{release}");
    }
}

#[track_caller]
fn expect_prototype(drift: Option<Drift>, signature: &str) {
    match drift {
        Some(Drift::Prototype { found, expected }) => {
            assert_eq!(found, signature);
            assert_ne!(found, expected);
        }
        drift => panic!("expected a drift of the prototype, not {drift:?}"),
    }
}

#[test]
fn a_function_with_another_prototype_has_drifted() {
    let add = |draft: &mut Draft| {
        let proto = prototype(draft, "release_task");
        proto.rows.push(proto.rows[0].clone());
    };
    expect_prototype(
        drift("6.12.117", "release_task", add),
        "void (struct task_struct *, struct task_struct *)",
    );
    let drop_first = |draft: &mut Draft| drop(prototype(draft, "copy_pid_ns").rows.remove(0));
    expect_prototype(
        drift("7.3.4", "copy_pid_ns", drop_first),
        "struct pid_namespace * (struct user_namespace *, struct pid_namespace *)",
    );
    let nothing = |draft: &mut Draft| prototype(draft, "ksys_unshare").cell = Cell::Type(0);
    expect_prototype(drift("5.10.262", "ksys_unshare", nothing), "void (integer)");
    let other = |draft: &mut Draft| entry(draft, "nsset").name.push_str("_2");
    expect_prototype(
        drift("6.1.192", "pidns_install", other),
        "integer (struct nsset_2 *, struct ns_common *)",
    );
}

#[test]
fn a_tracepoint_may_gain_arguments_but_not_lose_or_swap_them() {
    let add = |draft: &mut Draft| {
        let proto = prototype(draft, "btf_trace_sched_process_fork");
        proto.rows.push(proto.rows[1].clone());
    };
    assert_eq!(drift("6.18.15", "sched_process_fork", add), None);
    let lose = |draft: &mut Draft| drop(prototype(draft, "btf_trace_sched_process_fork").rows.pop());
    expect_prototype(drift("6.18.15", "sched_process_fork", lose), "void (struct task_struct *)");
    let swap = |draft: &mut Draft| prototype(draft, "btf_trace_signal_generate").rows.swap(1, 2);
    expect_prototype(
        drift("6.18.15", "signal_generate", swap),
        "void (struct kernel_siginfo *, integer, struct task_struct *, integer, integer)",
    );
}

#[test]
fn the_stream_does_not_run_if_a_required_hook_drifts() {
    let mut draft = Kernel::named("6.18.15").draft();
    entry(&mut draft, "btf_trace_sched_process_fork").name.push_str("_2");
    let bytes = draft.write();
    let judgement = btf_report(&parse_complete(&bytes).expect("whole"), HookSet::Auto).expect("a judgement");
    assert!(!judgement.runs());
    assert!(judgement.missing.is_empty(), "the layout is complete");
}

#[test]
fn a_missing_required_member_is_named() {
    let mut draft = Kernel::named("6.18.15").draft();
    for entry in draft.types.iter_mut().filter(|entry| entry.name == "pid_namespace") {
        entry.rows.retain(|row| row[0] != Cell::Name("child_reaper".to_owned()));
    }
    let bytes = draft.write();
    let judgement = btf_report(&parse_complete(&bytes).expect("whole"), HookSet::Auto).expect("a judgement");
    assert!(!judgement.runs());
    let gone = BtfError::NoField { structure: "pid_namespace".into(), field: "child_reaper".into() };
    assert_eq!(judgement.missing, [gone]);
}

#[test]
fn extracts_hold_only_requested_types() {
    for Kernel { release, btf, .. } in KERNELS {
        assert!(btf.len() < 7_000, "{release}: {} bytes", btf.len());
        let members: usize = Kernel::named(release).draft().types.iter().map(|entry| entry.rows.len()).sum();
        assert!(members < 3 * OFFSETS.len(), "{release}: {members} members, parameters and the like");
    }
}

#[test]
fn a_truncated_extract_is_an_error() {
    for Kernel { release, btf, .. } in KERNELS {
        for len in 0..btf.len() {
            let error = parse_complete(&btf[..len]).expect_err("the extract is truncated");
            let is_rejected = matches!(error, Unusable::Empty | Unusable::CutShort(_) | Unusable::Damaged(_));
            assert!(is_rejected, "{release}, {len} bytes: {error}");
        }
    }
}

#[test]
fn the_btf_of_a_module_is_recognised() {
    // A module's names and types continue those of its kernel, whose strings begin with the empty one.
    let mut draft = Kernel::named("6.18.15").draft();
    draft.types.truncate(1);
    draft.types[0] = DraftType {
        name: String::new(),
        kind: 2,
        flag: false,
        linkage: 0,
        cell: Cell::Type(77_000),
        rows: Vec::new(),
    };
    let mut bytes = draft.write();
    let error = parse_complete(&bytes).expect_err("its kernel is missing");
    assert!(error.to_string().contains("refers to type 77000"), "{error}");
    *bytes.last_mut().expect("the empty string") = b'a';
    assert_eq!(parse_complete(&bytes).expect_err("its kernel is missing"), Unusable::Module);
}

#[test]
fn data_other_than_btf_is_recognised() {
    let mut kernel = vec![0; 0x300];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    let mut swapped = Kernel::named("6.18.15").btf.to_vec();
    swapped.swap(0, 1);
    let mut version = Kernel::named("6.18.15").btf.to_vec();
    version[2] = 2;
    let cases: [(&[u8], &str, &str); 8] = [
        (b"", "empty", "copy /sys/kernel/btf/vmlinux again"),
        (b"\x7fELF\x02\x01\x01", "ELF", "objcopy --dump-section .BTF=out"),
        (&kernel, "compressed kernel", "extract-vmlinux"),
        (b"\x28\xb5\x2f\xfd....", "zstd", "decompress"),
        (&swapped, "byte order", "x86-64"),
        (&version, "version", "copy /sys/kernel/btf/vmlinux again"),
        (b"root:x:0:0", "magic number", "copy /sys/kernel/btf/vmlinux again"),
        (b"\x9f\xeb\x01\0", "cut short", "copy /sys/kernel/btf/vmlinux again"),
    ];
    for (bytes, what, remedy) in cases {
        let error = parse_complete(bytes).expect_err(what);
        assert!(error.to_string().contains(what), "{what}: {error}");
        assert!(error.remedy().contains(remedy), "{what}: {}", error.remedy());
    }
}

proptest! {
    #[test]
    fn damaged_btf_causes_no_panic(kernel in 0..KERNELS.len(), at: prop::sample::Index, bytes: [u8; 4]) {
        let mut damaged = KERNELS[kernel].btf.to_vec();
        let at = at.index(damaged.len());
        for (byte, damage) in damaged[at..].iter_mut().zip(bytes) {
            *byte = damage;
        }
        // Read it as the stream does, and then as `check --btf` does.
        if let Ok(btf) = Btf::parse(&damaged) {
            let _ = Layout::resolve(&btf);
            let _ = btf_report(&btf, HookSet::Auto);
        }
        if let Ok(btf) = parse_complete(&damaged) {
            let _ = btf_report(&btf, HookSet::Tracepoint);
            let _ = btf.to_draft().expect("read the whole BTF").write();
        }
    }
}
