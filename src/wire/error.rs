//! The error of a call: a stable code and a sentence.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The error of a call.
#[derive(Debug, Clone, Error, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[error("{message}")]
pub struct ApiError {
    /// The kind of failure, for programs.
    pub code: ErrorCode,
    /// A sentence for people: the error and the remedy.
    pub message: String,
}

impl ApiError {
    /// Reads the error in an agent's answer; `None`: the answer has no error of an agent. If this version does not know
    /// the error's code, the HTTP status determines the code.
    pub fn read(status: u16, body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Answer {
            code: String,
            message: String,
        }
        let Answer { code, message } = serde_json::from_slice(body).ok()?;
        let known = serde_json::from_value(serde_json::Value::String(code));
        let by_status = |_| match status {
            400 => ErrorCode::BadRequest,
            403 => ErrorCode::Refused,
            409 => ErrorCode::Conflict,
            422 => ErrorCode::NeedsDocument,
            501 => ErrorCode::Unsupported,
            _ => ErrorCode::Failed,
        };
        Some(Self { code: known.unwrap_or_else(by_status), message })
    }
}

/// The kinds of failure. Their names and meanings are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request is invalid.
    BadRequest,
    /// The agent refuses the request or the interface. For example, the agent's config does not allow the interface, or
    /// the interface has qdiscs or filters of another program.
    Refused,
    /// The kernel lacks a feature that the request needs.
    Unsupported,
    /// The caller's certificate is for viewers, which may only read.
    ReadOnly,
    /// The agent lacks a capability.
    Permission,
    /// Another controller changed the state, or is changing it.
    Conflict,
    /// The agent cannot apply the edit (`edit`). The whole document (`wanted`) is necessary.
    NeedsDocument,
    /// The call failed for another reason, such as an error of the kernel. The node is unchanged.
    Failed,
    /// A write to the kernel failed, and its rollback failed too. The node is in an intermediate state.
    Broken,
}

impl ErrorCode {
    /// An error of this kind.
    pub fn error(self, message: impl fmt::Display) -> ApiError {
        ApiError { code: self, message: message.to_string() }
    }

    /// The HTTP status of the code.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Refused | Self::ReadOnly | Self::Permission => 403,
            Self::Conflict => 409,
            Self::NeedsDocument => 422,
            Self::Unsupported => 501,
            Self::Failed | Self::Broken => 500,
        }
    }
}
