//! The request for the facts about an agent's host, for `netemctl doctor`.

use serde::{Deserialize, Serialize};

use super::ClockReading;
use crate::doctor::Facts;

/// Asks for the facts about the host that can change an experiment. Changes nothing.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetFacts {}

/// The facts about the host of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HostFacts {
    /// The agent's clock at the request and at the answer.
    pub clock: ClockReading,
    /// The facts.
    #[serde(flatten)]
    pub facts: Facts,
}
