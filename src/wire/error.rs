//! Why an agent did not do what it was asked: a stable code and a sentence.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why an agent did not do what it was asked.
#[derive(Debug, Clone, Error, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[error("{message}")]
pub struct ApiError {
    /// What kind of failure; programs decide by it.
    pub code: ErrorCode,
    /// A sentence for people: what is wrong, and what to do.
    pub message: String,
}

impl ApiError {
    /// An error of kind `code`.
    pub fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }
}

impl ApiError {
    /// What an agent answered with this HTTP status, if it is an error of an agent. A kind that this version does not know is
    /// told by the status, and the sentence is kept.
    pub fn read(status: u16, body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Said {
            code: String,
            message: String,
        }
        let Said { code, message } = serde_json::from_slice(body).ok()?;
        let known = serde_json::from_value(serde_json::Value::String(code));
        let by_status = |_| match status {
            400 => ErrorCode::BadRequest,
            403 => ErrorCode::Refused,
            409 => ErrorCode::Conflict,
            501 => ErrorCode::Unsupported,
            _ => ErrorCode::Failed,
        };
        Some(Self { code: known.unwrap_or_else(by_status), message })
    }
}

/// The kinds of failure; they are part of the contract and never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request makes no sense.
    BadRequest,
    /// The agent's guard refuses: the interface is not allowed, not the database's, or carries somebody else's work.
    Refused,
    /// The kernel cannot do what is asked.
    Unsupported,
    /// The certificate is a viewer's, which may only read.
    ReadOnly,
    /// The agent lacks the right to do it.
    Permission,
    /// Another controller changed the state, or is changing it.
    Conflict,
    /// The kernel failed; the node is as it was.
    Failed,
    /// The kernel failed, and so did rolling it back: the node is neither as it was nor as wanted.
    Broken,
}

impl ErrorCode {
    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Refused | Self::ReadOnly | Self::Permission => 403,
            Self::Conflict => 409,
            Self::Unsupported => 501,
            Self::Failed | Self::Broken => 500,
        }
    }
}
