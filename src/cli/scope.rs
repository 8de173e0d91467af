//! The options for the nodes and the retries of a change: `--wait 30s`, `--only n[1-3]`, `--allow-missing`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{
    Exit, Failure,
    timing::{dice, time_limit},
};
use crate::{
    fleet::{Scope, TransactionError},
    inventory::NodeEntry,
    topology::{NodeName, hostlist},
};

/// The minimum time between two attempts.
///
/// A random time is added, so two conflicting controllers wait differently.
const PAUSE: Duration = Duration::from_millis(100);

/// The options of every change.
#[derive(Debug, clap::Args)]
pub(super) struct ScopeOptions {
    /// Retry for this long
    ///
    /// Retries while another controller changes the nodes or a node does not answer.
    #[arg(long, value_name = "TIME", value_parser = time_limit)]
    wait: Option<Duration>,

    /// Change these nodes only (hostlist)
    ///
    /// status shows the other nodes as behind.
    #[arg(long, value_name = "NODES")]
    only: Vec<String>,

    /// Leave out nodes that do not answer
    ///
    /// status shows them as behind.
    #[arg(long)]
    allow_missing: bool,
}

impl ScopeOptions {
    /// The scope of the change: the nodes of `--only`, or all nodes of the inventory.
    pub(super) fn scope(&self, nodes: &BTreeMap<NodeName, NodeEntry>) -> Result<Scope, Failure> {
        let mut only = BTreeSet::new();
        for word in &self.only {
            for name in hostlist::expand(word)? {
                let node = NodeName::try_from(name.clone()).ok().filter(|node| nodes.contains_key(node));
                let node = node.ok_or_else(|| {
                    let nodes = hostlist::fold(nodes.keys());
                    let message = "--only takes nodes, not zones: no node is called";
                    Failure::new(Exit::Usage, format!("{message} {name}; the nodes are {nodes}"))
                })?;
                only.insert(node);
            }
        }
        let only = (!only.is_empty()).then_some(only);
        Ok(Scope { only, allow_missing: self.allow_missing, ..Scope::default() })
    }

    /// Repeats the attempt until it succeeds, until it fails permanently, or until the time of `--wait` is over.
    pub(super) async fn until_it_succeeds<T>(
        &self,
        interrupt: &CancellationToken,
        attempt: impl AsyncFn() -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        let deadline = Instant::now() + self.wait.unwrap_or_default();
        let mut dice = dice();
        loop {
            let failed = match attempt().await {
                Err(error) if error.may_pass() => error,
                outcome => return outcome,
            };
            let pause = PAUSE + Duration::from_millis(dice.throw() % 300);
            if Instant::now() + pause >= deadline {
                return Err(failed);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = interrupt.cancelled() => return Err(TransactionError::Interrupted),
            }
        }
    }
}
