//! The kernels that the user wants to test, each with its set of hooks.

use std::{fmt, str::FromStr};

use clap::ValueEnum;

/// The hooks that the tracer uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Hooks {
    /// The tracer's own choice
    #[default]
    Auto,
    /// Programs on functions (fentry, fexit)
    Function,
    /// Programs on tracepoints
    Tracepoint,
}

impl Hooks {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Function => "function",
            Self::Tracepoint => "tracepoint",
        }
    }

    /// Whether this set includes hooks of these forms.
    pub(super) fn covers(self, mut forms: impl Iterator<Item: AsRef<str>>) -> bool {
        let is_function = |form: &str| form.starts_with("fentry") || form.starts_with("fexit");
        match self {
            Self::Auto => true,
            Self::Function => forms.any(|form| is_function(form.as_ref())),
            Self::Tracepoint => !forms.any(|form| is_function(form.as_ref())),
        }
    }
}

/// The name of a kernel: `newest`, or the first two numbers of its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelName(String);

impl KernelName {
    pub(super) const NEWEST: &str = "newest";

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KernelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for KernelName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let is_version =
            text.split_once('.').is_some_and(|(major, minor)| is_number(major) && is_number(minor));
        if text == Self::NEWEST || is_version {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("{text:?} is not a kernel: give two numbers of its version, as in 6.1, or newest"))
        }
    }
}

/// One run: `KERNEL` or `KERNEL:HOOKS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) kernel: KernelName,
    /// `None` if the user gave no hooks.
    pub(super) hooks: Option<Hooks>,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kernel, hooks) = match text.split_once(':') {
            Some((kernel, hooks)) => (kernel, Some(<Hooks as ValueEnum>::from_str(hooks, false)?)),
            None => (text, None),
        };
        Ok(Self { kernel: kernel.parse()?, hooks })
    }
}

/// The default kernels: Debian's, from the oldest maintained one to the newest.
pub(super) fn default_set() -> Vec<Wanted> {
    ["5.10", "6.1", "6.12", KernelName::NEWEST]
        .map(|name| Wanted { kernel: KernelName(name.to_owned()), hooks: None })
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_may_name_its_hooks() {
        let wanted: Wanted = "6.1:tracepoint".parse().expect("a kernel and hooks");
        assert_eq!((wanted.kernel.as_str(), wanted.hooks), ("6.1", Some(Hooks::Tracepoint)));
        let wanted: Wanted = "newest".parse().expect("a kernel");
        assert_eq!((wanted.kernel.as_str(), wanted.hooks), ("newest", None));
    }

    #[test]
    fn unknown_kernels_and_hooks_are_refused() {
        for wrong in ["6", "6.1.192", "latest", "6.x", "", "../6.1", "6.1:", "6.1:kprobe"] {
            assert!(wrong.parse::<Wanted>().is_err(), "{wrong:?} is refused");
        }
    }

    #[test]
    fn a_forced_set_is_recognised_by_its_forms() {
        let both = ["fentry", "tp_btf"];
        let one = ["tp_btf", "off: not here"];
        assert!(Hooks::Function.covers(both.iter()) && !Hooks::Function.covers(one.iter()));
        assert!(Hooks::Tracepoint.covers(one.iter()) && !Hooks::Tracepoint.covers(both.iter()));
        assert!(Hooks::Auto.covers(both.iter()) && Hooks::Auto.covers(one.iter()));
    }
}
