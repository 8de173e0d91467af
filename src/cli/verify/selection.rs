//! The pairs that `verify` measures: all, those of `--pairs`, or a sample.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{
    cli::{Exit, Failure, render::count, timing::dice},
    plan::{Inventory, Wanted},
    probe::Pairs,
    topology::NodeName,
};

/// The number of pairs that are all measured by default: those of 150 nodes. In a lab, they take seven minutes.
const MOST_PAIRS: usize = 150 * 149;

/// The largest number of pairs of a measurement: those of 2,000 nodes. The pairs are in memory.
const LARGEST: usize = 2_000 * 1_999;

/// The options that choose pairs.
#[derive(Debug, clap::Args)]
pub(super) struct PairOptions {
    /// Measure these pairs only (repeatable)
    ///
    /// FROM and TO are zones, nodes, hostlists or * for all nodes.
    #[arg(long = "pairs", value_name = "FROM:TO", conflicts_with_all = ["quick", "all"])]
    pairs: Vec<String>,

    /// Measure a sample of the pairs
    ///
    /// One pair for each two zones in both directions and within each zone, and each node at least once. The default for
    /// more than 150 nodes.
    #[arg(long)]
    quick: bool,

    /// Measure all pairs, however many
    #[arg(long, conflicts_with = "quick")]
    all: bool,

    /// Seed of the sample [default: random]
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["pairs", "all"])]
    seed: Option<u64>,
}

/// The choice of the pairs that were measured.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum Selection {
    /// All ordered pairs.
    All,
    /// The pairs that `--pairs` names.
    Chosen,
    /// One pair for each ordered pair of zones and for each zone with itself, and each node at least once.
    Sample {
        /// The seed, which decides which nodes of a zone are taken.
        seed: u64,
        /// The number of all ordered pairs.
        of: usize,
    },
}

impl PairOptions {
    /// The pairs to measure.
    pub(super) fn select(&self, wanted: &Wanted, inventory: &Inventory) -> Result<(Pairs, Selection), Failure> {
        let nodes = || inventory.nodes.keys();
        let all = nodes().len() * nodes().len().saturating_sub(1);
        if !self.pairs.is_empty() {
            return Ok((self.chosen(wanted, inventory)?, Selection::Chosen));
        }
        if self.quick || self.seed.is_some() || (all > MOST_PAIRS && !self.all) {
            let seed = self.seed.unwrap_or_else(|| dice().throw());
            let in_zones = wanted.zones().into_values();
            let mut zones: Vec<Vec<NodeName>> = in_zones.map(|members| on(inventory, members)).collect();
            let named: BTreeSet<&NodeName> = zones.iter().flatten().collect();
            let rest: Vec<NodeName> = nodes().filter(|node| !named.contains(node)).cloned().collect();
            zones.push(rest);
            return Ok((Pairs::sample(zones.iter().map(Vec::as_slice), seed), Selection::Sample { seed, of: all }));
        }
        if all > LARGEST {
            return Err(Failure::new(Exit::Usage, format!("all {} are too many", count(all, "pair")))
                .hint("measure a sample: --quick; or choose: --pairs FROM:TO"));
        }
        Ok((Pairs::all(&inventory.nodes), Selection::All))
    }

    fn chosen(&self, wanted: &Wanted, inventory: &Inventory) -> Result<Pairs, Failure> {
        let mut pairs = Vec::new();
        for text in &self.pairs {
            let (from, to) = text.split_once(':').ok_or_else(|| {
                Failure::new(Exit::Usage, format!("--pairs {text}: write FROM:TO, such as Z1:Z3 or n1:*"))
            })?;
            let select = |names| wanted.select(names).map_err(|error| Failure::new(Exit::Usage, error));
            let (from, to) = (select(from)?, select(to)?);
            let is_there = |node: &&NodeName| inventory.nodes.contains_key(*node);
            for from in from.iter().filter(is_there) {
                pairs.extend(to.iter().filter(is_there).map(|to| (from.clone(), to.clone())));
            }
        }
        let pairs: Pairs = pairs.into_iter().collect();
        if pairs.is_empty() {
            let message = format!("--pairs {} has no pair of different nodes", self.pairs.join(" "));
            return Err(Failure::new(Exit::Usage, message));
        }
        Ok(pairs)
    }
}

fn on(inventory: &Inventory, members: &[NodeName]) -> Vec<NodeName> {
    members.iter().filter(|node| inventory.nodes.contains_key(*node)).cloned().collect()
}

impl Selection {
    /// The pairs in a phrase.
    pub(super) fn phrase(&self, measured: usize) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::Chosen => "those of --pairs".to_owned(),
            Self::Sample { .. } => self.paragraph(measured).trim().to_owned(),
        }
    }

    /// A paragraph about pairs that were not measured; empty: all pairs were measured.
    pub(super) fn paragraph(&self, measured: usize) -> String {
        match self {
            Self::All | Self::Chosen => String::new(),
            Self::Sample { seed, of } => format!(
                "\na sample of {}: each pair of zones, and each node at least once (--seed {seed}); --all measures all {of}\n",
                count(measured, "pair")
            ),
        }
    }
}
