//! How a part ends, and with which exit code.

use thiserror::Error;

/// Why a part ended early. Its exit code tells a supervisor whether a restart can help.
#[derive(Debug, Error)]
pub enum Error {
    /// The user's input is wrong: arguments, a manifest, a port in use. Nothing was started. Exit 64.
    /// The text names the field (or flag, or file), its value and the remedy.
    #[error("{0}")]
    Usage(String),
    /// Something failed while running. Exit 1.
    #[error("{context}: {source}")]
    Failed {
        /// What was being done, as a verb phrase.
        context: String,
        /// Why it could not be.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// A failure while doing `context`.
    pub fn failed(context: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed { context: context.into(), source: source.into() }
    }

    /// The process exit code (sysexits: 64 is a usage error).
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::Failed { .. } => 1,
        }
    }
}
