//! How a verb ends when it does not succeed.

/// Why a verb failed, and with which exit status.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// Bad usage: one sentence. Status 2.
    Usage(String),
    /// Work of xtask's own failed: what went wrong. Status 1.
    Work(String),
    /// A command that xtask ran failed and has said why itself; its status is handed on.
    Child(u8),
}

impl Failure {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Work(_) => 1,
            Failure::Child(status) => *status,
        }
    }

    /// What to tell, where it has not been told yet.
    pub fn message(&self) -> Option<&str> {
        match self {
            Failure::Usage(text) | Failure::Work(text) => Some(text),
            Failure::Child(_) => None,
        }
    }
}
