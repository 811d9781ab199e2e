//! Compares sets of hooks with one another: `pidns-trace --hooks SET`.

use std::{collections::BTreeMap, fmt};

use anyhow::{Result, bail};
use pidns_user::kernel::hooks::{HookSet, SYSCALL_HOOK};
use serde::Serialize;

use crate::{subject::Subject, tracer};

/// The sets that the user chose.
#[derive(Serialize)]
pub(crate) struct Sets {
    /// The hooks of each set that this kernel accepts, with their forms as in `stream.start`.
    taken: BTreeMap<Subject, BTreeMap<String, String>>,
    /// The sets that this kernel refuses, with the reason.
    refused: BTreeMap<Subject, String>,
}

impl Sets {
    /// Tries each set.
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
            bail!("this kernel accepts none of the sets of hooks: {}", whys.join("; "));
        }
        Ok(this)
    }

    /// The subjects to measure.
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
