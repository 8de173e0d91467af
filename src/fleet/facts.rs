//! Reads the facts about the hosts of all nodes, with the offsets of their clocks.

use std::collections::BTreeMap;

use super::{Answers, Fleet, Timeouts, body::Body, clocks, fan_out::RetryPolicy};
use crate::{
    topology::NodeName,
    wire::{GetFacts, HostFacts},
};

impl Fleet {
    /// The facts about all hosts, and the nanoseconds by which a clock is ahead of this machine's clock. Has only nodes
    /// whose clock certainly differs.
    pub async fn facts(&self, timeouts: Timeouts) -> (Answers<HostFacts>, BTreeMap<NodeName, i64>) {
        let body = Body::of(&GetFacts {});
        let (answers, exchanges) = self.send::<GetFacts>(RetryPolicy::once(timeouts), |_| body.clone()).await;
        let ahead = clocks::ahead(&answers, &exchanges, |facts| Some(facts.clock));
        (answers, ahead)
    }
}
