//! The accelerator of a guest: emulation, which works everywhere, or KVM.

/// An accelerator of qemu.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accel {
    Tcg,
    Kvm,
}

impl Accel {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }

    pub(super) fn cpu(self) -> &'static str {
        match self {
            Self::Tcg => "max",
            Self::Kvm => "host",
        }
    }

    /// The factor for the tests' time limits.
    pub(super) fn patience(self) -> u32 {
        match self {
            Self::Tcg => 8,
            Self::Kvm => 4,
        }
    }

    /// The number of processes in the tests' big storm.
    pub(super) fn lives(self) -> u32 {
        match self {
            Self::Tcg => 2_000,
            Self::Kvm => 50_000,
        }
    }
}
