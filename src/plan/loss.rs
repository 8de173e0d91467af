//! Adds the losses of partial partitions to the losses of links.
//!
//! A partial partition (`partition --loss`) drops a share of the packets instead of all packets.

use thiserror::Error;

use super::{Partition, Wanted, partition::SideIndex};
use crate::topology::{Chance, Link, Loss, LossModel, NodeName, Probability};

/// The losses of all partial partitions, prepared for queries about many links.
pub(super) struct Losses<'a>(Vec<(Probability, SideIndex<'a>)>);

impl Losses<'_> {
    /// The link from one node to another with the losses of the partitions. Leaves out each loss that cannot be added.
    pub(super) fn over(&self, from: &NodeName, to: &NodeName, link: Link) -> Link {
        lost_on(link, self.0.iter().filter(|(_, sides)| sides.cuts(from, to)).map(|(share, _)| *share))
    }
}

/// The link with these losses in addition to its own loss. Leaves out each loss that cannot be added.
pub(super) fn lost_on(link: Link, losses: impl Iterator<Item = Probability>) -> Link {
    losses.fold(link, |link, more| with_loss(link, more).unwrap_or(link))
}

impl Wanted {
    /// The losses of the partial partitions.
    pub(super) fn losses(&self) -> Losses<'_> {
        let partial =
            self.partitions.iter().filter_map(|partition| Some((partition.lost()?, partition.shape.side_index())));
        Losses(partial.collect())
    }

    /// Finds the node's first link on which a partial partition cannot add its loss.
    pub fn unaddable_loss(&self, node: &NodeName) -> Option<UnaddableLoss> {
        let partial: Vec<&Partition> = self.partitions.iter().filter(|partition| partition.is_partial()).collect();
        if partial.is_empty() {
            return None;
        }
        self.own_links_from(node).find_map(|(to, link)| {
            let partition = partial.iter().find(|partition| partition.loss(node, to).is_some())?;
            let why = with_loss(link, Probability::ONE).err()?;
            Some(UnaddableLoss { from: node.clone(), to: to.clone(), partition: partition.name.clone(), why })
        })
    }
}

/// The link with another, independent loss in addition to its own loss.
fn with_loss(link: Link, more: Probability) -> Result<Link, Unaddable> {
    let model = match link.loss {
        None => LossModel::Random(Chance { probability: more, correlation: Probability::ZERO }),
        Some(Loss { ecn: true, .. }) => return Err(Unaddable::Ecn),
        Some(Loss { model, .. }) => match model {
            LossModel::Random(Chance { probability, correlation: Probability::ZERO }) => {
                LossModel::Random(Chance { probability: either(probability, more), correlation: Probability::ZERO })
            }
            LossModel::Random(_) => return Err(Unaddable::Correlated),
            LossModel::State { .. } => return Err(Unaddable::State),
            LossModel::GeModel { p, r, bad, good } => {
                LossModel::GeModel { p, r, bad: either(bad, more), good: either(good, more) }
            }
        },
    };
    Ok(Link { loss: Some(Loss { model, ecn: false }), ..link })
}

/// The probability of at least one of two independent events.
fn either(one: Probability, other: Probability) -> Probability {
    let neither = u64::from(one.complement().parts()) * u64::from(other.complement().parts());
    let whole = u64::from(u32::MAX);
    // The product is at most `whole` squared, so the quotient fits into 32 bits.
    let neither = u32::try_from((neither + whole / 2) / whole).unwrap_or(u32::MAX);
    Probability::from_parts(neither).complement()
}

/// A partial partition cannot add its loss to the loss of a link.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("partition {partition} cannot lose packets from {from} to {to}: {why}")]
pub struct UnaddableLoss {
    /// The sender.
    pub from: NodeName,
    /// The receiver.
    pub to: NodeName,
    /// The partition's name.
    pub partition: String,
    /// The reason.
    pub why: Unaddable,
}

/// The reason why netemctl cannot add another loss to the loss of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unaddable {
    /// The loss of the link is correlated (`loss.correlation`).
    #[error("the loss of the link is correlated; use no --loss, or remove the correlation with netemctl set")]
    Correlated,
    /// The loss of the link is a chain of four states (`loss.state`).
    #[error("the loss of the link is a chain of four states; use no --loss, or change the loss with netemctl set")]
    State,
    /// The link marks packets instead of losing packets (`loss.ecn`).
    #[error(
        "the link marks packets (loss.ecn) instead of losing them; use no --loss, or change the loss with netemctl set"
    )]
    Ecn,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percent(text: &str) -> Probability {
        text.parse().unwrap()
    }

    fn random(probability: &str, correlation: &str) -> LossModel {
        LossModel::Random(Chance { probability: percent(probability), correlation: percent(correlation) })
    }

    fn link(model: LossModel) -> Link {
        Link { loss: Some(Loss { model, ecn: false }), ..Link::default() }
    }

    #[test]
    fn the_sum_of_two_losses_counts_a_packet_lost_by_both_once() {
        assert_eq!(with_loss(Link::default(), percent("30%")), Ok(link(random("30%", "0%"))));
        assert_eq!(with_loss(link(random("50%", "0%")), percent("20%")), Ok(link(random("60%", "0%"))));
        let [p, r, bad, good] = ["1%", "10%", "50%", "0%"].map(percent);
        let model = LossModel::GeModel { p, r, bad: percent("60%"), good: percent("20%") };
        assert_eq!(with_loss(link(LossModel::GeModel { p, r, bad, good }), percent("20%")), Ok(link(model)));
    }

    #[test]
    fn correlated_losses_chains_of_four_states_and_ecn_marks_cannot_be_added() {
        assert_eq!(with_loss(link(random("1%", "25%")), percent("20%")), Err(Unaddable::Correlated));
        let [p13, p31, p32, p23, p14] = ["1%"; 5].map(percent);
        let state = LossModel::State { p13, p31, p32, p23, p14 };
        assert_eq!(with_loss(link(state), percent("20%")), Err(Unaddable::State));
        let marks = Link { loss: Some(Loss { model: random("1%", "0%"), ecn: true }), ..Link::default() };
        assert_eq!(with_loss(marks, percent("20%")), Err(Unaddable::Ecn));
    }

    proptest! {
        #[test]
        fn the_probability_of_either_event_matches_the_formula(one: u32, other: u32) {
            let [p, q] = [one, other].map(Probability::from_parts);
            let expected = 1.0 - (1.0 - p.share()) * (1.0 - q.share());
            prop_assert!((either(p, q).share() - expected).abs() < 1e-9);
            prop_assert_eq!(either(p, q), either(q, p));
            prop_assert_eq!(either(p, Probability::ZERO), p);
            prop_assert_eq!(either(p, Probability::ONE), Probability::ONE);
        }
    }
}
