//! How calls of guests end, as metrics, logs and error answers name it.

/// Why a guest failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// Unreachable code, a panic, out of bounds, division by zero, …
    Trap,
    /// The guest's stack ran out.
    Stack,
    /// The execution limit passed.
    Timeout,
    /// The guest ended itself.
    Exit,
    /// No instance could be made.
    Instantiate,
    /// What the guest returned or asked of the host was refused.
    Output,
    /// The body is larger than the module may be shown.
    BodyTooLarge,
    /// No instance was free in time.
    Busy,
    /// The module failed too often and is resting.
    Quarantined,
}

/// How one call of a guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Continue,
    Modify,
    Reject,
    Failure(FailureKind),
}

impl Outcome {
    pub const ALL: [Outcome; 12] = [
        Outcome::Continue,
        Outcome::Modify,
        Outcome::Reject,
        Outcome::Failure(FailureKind::Trap),
        Outcome::Failure(FailureKind::Stack),
        Outcome::Failure(FailureKind::Timeout),
        Outcome::Failure(FailureKind::Exit),
        Outcome::Failure(FailureKind::Instantiate),
        Outcome::Failure(FailureKind::Output),
        Outcome::Failure(FailureKind::BodyTooLarge),
        Outcome::Failure(FailureKind::Busy),
        Outcome::Failure(FailureKind::Quarantined),
    ];

    /// Its place in [`Outcome::ALL`].
    pub fn index(self) -> usize {
        match self {
            Outcome::Continue => 0,
            Outcome::Modify => 1,
            Outcome::Reject => 2,
            Outcome::Failure(kind) => 3 + kind as usize,
        }
    }

    pub fn label(self) -> &'static str {
        match self {
            Outcome::Continue => "continue",
            Outcome::Modify => "modify",
            Outcome::Reject => "reject",
            Outcome::Failure(kind) => kind.label(),
        }
    }
}

impl FailureKind {
    pub fn label(self) -> &'static str {
        match self {
            FailureKind::Trap => "trap",
            FailureKind::Stack => "stack",
            FailureKind::Timeout => "timeout",
            FailureKind::Exit => "exit",
            FailureKind::Instantiate => "instantiate",
            FailureKind::Output => "output",
            FailureKind::BodyTooLarge => "body_too_large",
            FailureKind::Busy => "busy",
            FailureKind::Quarantined => "quarantined",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_own_place() {
        for (at, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(outcome.index(), at, "{}", outcome.label());
        }
    }
}
