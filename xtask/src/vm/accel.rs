//! What runs the guest's instructions: emulation, which works everywhere, or KVM.

/// What is used.
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

    /// What the tests' time limits are multiplied with.
    pub(super) fn patience(self) -> u32 {
        match self {
            Self::Tcg => 8,
            Self::Kvm => 4,
        }
    }

    /// How many processes the tests' big storm makes.
    pub(super) fn lives(self) -> u32 {
        match self {
            Self::Tcg => 2_000,
            Self::Kvm => 50_000,
        }
    }
}
