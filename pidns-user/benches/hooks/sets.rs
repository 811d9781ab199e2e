//! Sets of hooks that are compared with one another: `pidns-trace --hooks SET`.

use std::{collections::BTreeMap, fmt};

use anyhow::{Result, bail};
use pidns_user::kernel::hooks::{HookSet, SYSCALL_HOOK};
use serde::Serialize;

use crate::{subject::Subject, tracer};

/// Those that were asked for.
#[derive(Serialize)]
pub(crate) struct Sets {
    /// What this kernel takes: each hook and its form, as in `stream.start`.
    taken: BTreeMap<Subject, BTreeMap<String, String>>,
    /// What it does not, and why.
    refused: BTreeMap<Subject, String>,
}

impl Sets {
    /// Tries each of them.
    pub(crate) fn try_each(sets: &[HookSet]) -> Result<Self> {
        let mut this = Self { taken: BTreeMap::new(), refused: BTreeMap::new() };
        for subject in sets.iter().map(|set| Subject::of(*set)) {
            match tracer::forms(subject.options())? {
                Ok(forms) => drop(this.taken.insert(subject, forms)),
                Err(why) => {
                    eprintln!("{} is not measured: {why}", subject.name());
                    this.refused.insert(subject, why);
                }
            }
        }
        if this.taken.is_empty() {
            let whys: Vec<&str> = this.refused.values().map(String::as_str).collect();
            bail!("this kernel takes none of the sets of hooks: {}", whys.join("; "));
        }
        Ok(this)
    }

    /// What is to be measured.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = Subject> {
        self.taken.keys().copied()
    }
}

impl fmt::Display for Sets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (subject, forms) in &self.taken {
            let count = |is: fn(&str) -> bool| forms.values().filter(|form| is(form)).count();
            let syscalls = forms.get(SYSCALL_HOOK).map_or("not known", String::as_str);
            writeln!(
                f,
                "{}: {} functions, {} tracepoints; {SYSCALL_HOOK}: {syscalls}",
                subject.name(),
                count(|form| form.starts_with("fentry") || form.starts_with("fexit")),
                count(|form| form.starts_with("tp_btf")),
            )?;
        }
        for (subject, why) in &self.refused {
            writeln!(f, "{}: not measured: {why}", subject.name())?;
        }
        Ok(())
    }
}
