//! Derives from a kernel's BTF alone what the kernel supports. No hook is tried and nothing is loaded.

use super::{
    btf::{Btf, BtfError},
    hooks::{self, AttachPoints, Hook, HookForm, HookSet, Need, incomplete, only_together_with},
    iterator,
    layout::{self, Layout, SnapshotLayout, has},
};

/// Facts about hooks and layout in a kernel's BTF.
#[derive(Debug)]
pub struct BtfReport {
    /// Offsets and features found in BTF.
    pub layout: Layout,
    /// Required types and fields that the kernel lacks.
    pub missing: Vec<BtfError>,
    /// Optional features that do not work on this kernel.
    pub losses: Vec<&'static Use>,
    /// Each hook, and the form in which it would run.
    pub hooks: Vec<(Hook, HookForm)>,
    /// The same for snapshots.
    pub snapshots: SnapshotReport,
    /// The requested hooks.
    set: HookSet,
}

/// Facts in BTF about the task iterator, which takes the snapshots.
#[derive(Debug)]
pub struct SnapshotReport {
    /// Offsets that the iterator's program uses.
    pub layout: SnapshotLayout,
    /// Requirements that the kernel lacks: the iterator itself, or required fields.
    pub missing: Vec<BtfError>,
    /// Optional features of snapshots that do not work on this kernel.
    pub losses: Vec<&'static Use>,
    /// Whether the kernel has the iterator of open files. It finds holders of namespaces.
    pub has_files: bool,
}

impl SnapshotReport {
    fn of(btf: &Btf<'_>) -> Result<Self, BtfError> {
        let (layout, mut missing) = SnapshotLayout::look_up(btf);
        let functions = btf.functions(&[iterator::FUNCTION, iterator::FILE_FUNCTION])?;
        if !functions.contains_key(iterator::FUNCTION) {
            missing.push(BtfError::NoType(iterator::FUNCTION.to_owned()));
        }
        let losses = SNAPSHOT_USES.iter().filter(|of| !of.needs.met(&layout.offsets, false)).collect();
        Ok(Self { layout, missing, losses, has_files: functions.contains_key(iterator::FILE_FUNCTION) })
    }
}

/// Reports what a kernel with this BTF supports if these hooks are requested.
pub fn btf_report(btf: &Btf<'_>, set: HookSet) -> Result<BtfReport, BtfError> {
    let (layout, missing) = Layout::look_up(btf);
    let met = |of: &&Use| !of.needs.met(&layout.offsets, layout.have_task_pt_regs);
    let losses = USES.iter().filter(met).collect();
    let snapshots = SnapshotReport::of(btf)?;
    let all = hooks::all(&layout);
    let points = AttachPoints::of(btf, &all)?;
    let mut forms: Vec<(Hook, HookForm)> = Vec::new();
    for hook in all {
        let form = match (hook.left_out(set, None), hook.find(&points)) {
            (Some(why), _) => HookForm::Off(why.to_owned()),
            (None, Err(drift)) => HookForm::Off(drift.to_string()),
            (None, Ok(_)) => HookForm::On(hook.programs),
        };
        forms.push((hook, form));
    }
    let incomplete = incomplete(&forms);
    for (hook, form) in forms.iter_mut().filter(|(_, form)| matches!(form, HookForm::On(_))) {
        let lacking = incomplete.iter().find(|(group, _)| hook.need == Need::Grouped(*group));
        if let Some((_, missing)) = lacking {
            *form = HookForm::Off(only_together_with(missing));
        } else if hook.is_unneeded(&incomplete) {
            *form = HookForm::Unneeded;
        }
    }
    Ok(BtfReport { layout, missing, losses, hooks: forms, snapshots, set })
}

impl BtfReport {
    /// Whether this hook in this form would keep the live stream from starting.
    pub fn is_fatal(&self, hook: &Hook, form: &HookForm) -> bool {
        matches!(form, HookForm::Off(_)) && hook.is_indispensable(self.set)
    }

    /// Whether the live stream would start, provided that the kernel accepts the programs.
    pub fn runs(&self) -> bool {
        self.missing.is_empty() && !self.hooks.iter().any(|(hook, form)| self.is_fatal(hook, form))
    }
}

/// A feature that needs optional parts of the layout.
#[derive(Debug, PartialEq, Eq)]
pub struct Use {
    /// Its short name.
    pub name: &'static str,
    /// The loss for users if the feature is missing.
    pub lost: &'static str,
    needs: Needs,
}

/// Symbols of `for_each_offset!` or `for_each_snapshot_offset!` that a feature needs.
#[derive(Debug, PartialEq, Eq)]
enum Needs {
    All(&'static [&'static str]),
    OneOf(&'static [&'static str]),
    /// All, if the kernel has no bpf_task_pt_regs.
    AllWithoutHelper(&'static [&'static str]),
}

impl Needs {
    fn symbols(&self) -> &'static [&'static str] {
        match self {
            Self::All(symbols) | Self::OneOf(symbols) | Self::AllWithoutHelper(symbols) => symbols,
        }
    }

    fn met(&self, offsets: &[(&'static str, u32)], have_task_pt_regs: bool) -> bool {
        let mut there = self.symbols().iter().map(|symbol| has(offsets, symbol));
        match self {
            Self::All(_) => there.all(|there| there),
            Self::OneOf(_) => there.any(|there| there),
            Self::AllWithoutHelper(_) => have_task_pt_regs || there.all(|there| there),
        }
    }
}

impl Use {
    /// The symbols that the feature needs and that `offsets` lacks.
    pub fn lacks(&self, offsets: &[(&'static str, u32)]) -> impl Iterator<Item = &'static str> {
        self.needs.symbols().iter().copied().filter(|symbol| !has(offsets, symbol))
    }
}

const USES: &[Use] = &[
    Use {
        name: "calls of fork",
        lost: "the call that made a fork (via); without the function hooks also whether it requested a namespace \
               (CLONE_NEWPID) or PIDs (set_tid)",
        needs: Needs::AllWithoutHelper(&["TASK_STACK", "THREAD_STACK_SIZE"]),
    },
    Use {
        name: "32-bit calls",
        lost: "that a system call came from a 32-bit program: its number is taken for a 64-bit call's",
        needs: Needs::All(&["TASK_THREAD_STATUS"]),
    },
    Use {
        name: "pids cgroup",
        lost: "that a fork was refused by a cgroup's pids.max: its reason is \"other\"",
        needs: Needs::All(&[
            "TASK_CGROUPS",
            "CSS_SET_SUBSYS",
            "CSS_PARENT",
            "PIDS_CGROUP_ID",
            "PIDS_CGROUP_CSS",
            "PIDS_CGROUP_COUNTER",
            "PIDS_CGROUP_LIMIT",
        ]),
    },
    Use {
        name: "full cgroup",
        lost: "the cgroup whose pids.max refused a fork",
        needs: Needs::All(&["CSS_CGROUP", "CGROUP_NODE", "KERNFS_NODE_ID"]),
    },
    Use {
        name: "seccomp",
        lost: "that a seccomp filter refused a call: its reason is \"permission\" or \"other\"",
        needs: Needs::All(&["TASK_SECCOMP_MODE"]),
    },
    Use {
        name: "RLIMIT_NPROC",
        lost: "that a fork was refused by its user's process limit: its reason is \"other\"",
        needs: Needs::All(&["CRED_CAP_EFFECTIVE", "SIGNAL_RLIMITS"]),
    },
    Use {
        name: "process count",
        lost: "that a fork was refused by its user's process limit: its reason is \"other\"",
        needs: Needs::OneOf(&["CRED_UCOUNTS", "UCOUNTS_RLIMIT", "USER_PROCESSES"]),
    },
    Use {
        name: "pid_max",
        lost: "refusals of forks by pid_max, if alloc_pid is not hooked: they have the reason \"other\"",
        needs: Needs::All(&["PIDNS_PID_MAX"]),
    },
    Use {
        name: "count limits",
        lost: "the user namespace whose limit refused a new PID namespace, with the limit and its use",
        needs: Needs::All(&[
            "USERNS_UCOUNTS",
            "USERNS_UCOUNT_MAX",
            "UCOUNT_SIZE",
            "UCOUNTS_NS",
            "UCOUNTS_UID",
            "UCOUNTS_COUNTS",
            "UCOUNT_PID_NAMESPACES",
            "UCOUNT_USER_NAMESPACES",
        ]),
    },
    Use {
        name: "taken PIDs",
        lost: "the process that already had the PID that a fork requested with set_tid",
        needs: Needs::All(&[
            "PIDNS_PIDS",
            "XA_NODE_SHIFT",
            "XA_NODE_SLOTS",
            "XA_NODE_TAGS",
            "PID_TASKS",
            "TASK_PID_LINKS",
        ]),
    },
    Use {
        name: "kernel_id",
        lost: "the kernel's own id of a namespace, which is never reused: inode number and start of init identify it instead",
        needs: Needs::All(&["NS_COMMON_ID"]),
    },
    Use {
        name: "namespace files",
        lost: "the namespace that a refused setns named through a file",
        needs: Needs::OneOf(&["NS_COMMON_TYPE", "PROC_NS_TYPE"]),
    },
];

/// Features of snapshots that need optional parts of the layout.
const SNAPSHOT_USES: &[Use] = &[
    Use {
        name: "process state",
        lost: "in snapshots, the state of a process that has not ended: all count as running",
        needs: Needs::OneOf(&["TASK_STATE", "TASK_STATE_BEFORE_5_14"]),
    },
    Use {
        name: "cgroup v2 freezer",
        lost: "in snapshots, that a process is frozen by its cgroup (version 2)",
        needs: Needs::All(&["TASK_JOBCTL"]),
    },
    Use {
        name: "when a task last ran",
        lost: "in snapshots, since when a process is a zombie, and the minimum time that an exiting PID 1 has waited",
        needs: Needs::All(&["TASK_LAST_ARRIVAL", "TASK_RAN", "TASK_RAN_BEFORE"]),
    },
    Use {
        name: "subreapers",
        lost: "in snapshots, which processes are subreapers, so that they adopt orphaned descendants",
        needs: Needs::All(&["SIGNAL_SUBREAPER"]),
    },
    Use {
        name: "cgroup id",
        lost: "in snapshots, the id of a process's cgroup",
        needs: Needs::All(&["TASK_CGROUPS", "CSS_SET_DEFAULT_CGROUP", "CGROUP_NODE", "KERNFS_NODE_ID"]),
    },
    Use { name: "roots of processes", lost: WITHOUT_HOLDERS, needs: Needs::All(layout::HOLDERS) },
    Use { name: "namespace types", lost: WITHOUT_HOLDERS, needs: Needs::OneOf(layout::KINDS) },
];

const WITHOUT_HOLDERS: &str = "in snapshots, the kernel's iterators for holders of namespaces: /proc is read instead, which takes \
                            several times as long";

#[cfg(test)]
mod tests {
    use super::*;
    use pidns_ebpf::abi::symbols::{OFFSETS, SNAPSHOT_OFFSETS};

    #[test]
    fn every_optional_part_of_the_layout_belongs_to_a_feature() {
        for offset in OFFSETS {
            let used = USES.iter().any(|of| of.needs.symbols().contains(&offset.symbol));
            assert_eq!(used, offset.optional, "{}: what is lost without it?", offset.symbol);
        }
        for symbol in USES.iter().flat_map(|of| of.needs.symbols()) {
            assert!(OFFSETS.iter().any(|offset| offset.symbol == *symbol), "{symbol} is no offset");
        }
        let in_snapshots = |symbol| SNAPSHOT_USES.iter().any(|of| of.needs.symbols().contains(symbol));
        for offset in SNAPSHOT_OFFSETS {
            assert_eq!(in_snapshots(&offset.symbol), offset.optional, "{}: what is lost?", offset.symbol);
        }
        for symbol in SNAPSHOT_USES.iter().flat_map(|of| of.needs.symbols()) {
            assert!(SnapshotLayout::wanted().any(|offset| offset.symbol == *symbol), "{symbol} is no offset");
        }
    }
}
