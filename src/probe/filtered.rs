//! Counts the packets of a measurement that the nodes' own firewalls and kernels dropped: [`Filtered`].

use std::{collections::BTreeMap, net::IpAddr};

use serde::Serialize;

use crate::{
    topology::NodeName,
    wire::{Discards, Echoes, Probe, Probed},
};

/// The packets that the two nodes of a pair dropped, by firewall hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Filtered {
    /// Requests that the sender's firewall dropped: output.
    pub requests_out: u64,
    /// Requests that arrived at the other node's interface and were dropped: input, prerouting, or `rp_filter`.
    pub requests_in: u64,
    /// Answers that the other node's kernel dropped: output, postrouting, or a full queue.
    pub answers_out: u64,
    /// Answers that arrived at the sender's interface and were dropped.
    pub answers_in: u64,
}

impl Filtered {
    /// The sum of all four counts.
    pub fn total(&self) -> u64 {
        [self.requests_out, self.requests_in, self.answers_out, self.answers_in].into_iter().sum()
    }

    /// Adds the counts of another slice.
    pub fn add(&mut self, other: Self) {
        self.requests_out = self.requests_out.saturating_add(other.requests_out);
        self.requests_in = self.requests_in.saturating_add(other.requests_in);
        self.answers_out = self.answers_out.saturating_add(other.answers_out);
        self.answers_in = self.answers_in.saturating_add(other.answers_in);
    }
}

/// The requests and answers of a slice that arrived, are missing or were dropped.
pub(super) struct Missing {
    /// By sender and address: the number of requests that arrived, and the number that the other node dropped.
    heard: BTreeMap<(NodeName, IpAddr), (u64, u64)>,
    /// By answering node and address family (true: IPv4): the number of missing answers to all senders.
    answers: BTreeMap<(NodeName, bool), u64>,
    /// The outgoing packets that each node's kernel dropped.
    discards: BTreeMap<NodeName, Discards>,
    /// The node of each address.
    owners: BTreeMap<IpAddr, NodeName>,
}

impl Missing {
    pub(super) fn of(owners: &BTreeMap<IpAddr, NodeName>, answers: &BTreeMap<NodeName, (Probe, Probed)>) -> Self {
        let mut missing = Self {
            heard: BTreeMap::new(),
            answers: BTreeMap::new(),
            discards: answers.iter().map(|(node, (_, probed))| (node.clone(), probed.discards)).collect(),
            owners: owners.clone(),
        };
        for (node, (_, probed)) in answers {
            for heard in probed.heard.iter().filter(|heard| owners.get(&heard.to) == Some(node)) {
                let Some(from) = owners.get(&heard.from) else { continue };
                let (requests, dropped) = missing.heard.entry((from.clone(), heard.to)).or_default();
                *requests += u64::from(heard.requests);
                *dropped += u64::from(heard.dropped);
            }
        }
        for (node, (_, probed)) in answers {
            for echoes in &probed.echoes {
                if let Some(owner) = owners.get(&echoes.address) {
                    let answers = missing.answers.entry((owner.clone(), echoes.address.is_ipv4())).or_default();
                    *answers += Self::unanswered(missing.heard.get(&(node.clone(), echoes.address)), echoes);
                }
            }
        }
        missing
    }

    /// The number of requests that arrived and whose answers did not reach the sender's interface.
    fn unanswered(heard: Option<&(u64, u64)>, echoes: &Echoes) -> u64 {
        let (requests, _) = heard.copied().unwrap_or_default();
        let answered = echoes.rtts_ns.len() as u64 + u64::from(echoes.duplicates);
        requests.saturating_sub(answered + u64::from(echoes.dropped))
    }

    /// The packets of a pair that the two nodes dropped.
    ///
    /// The kernel counts dropped answers for all destinations together. Each pair gets a share in proportion to its
    /// missing answers.
    pub(super) fn filtered(&self, node: &NodeName, echoes: &Echoes) -> Filtered {
        let heard = self.heard.get(&(node.clone(), echoes.address));
        let owner = self.owners.get(&echoes.address);
        let discarded = owner.and_then(|owner| {
            let Discards { ipv4, ipv6 } = *self.discards.get(owner)?;
            Some(if echoes.address.is_ipv4() { ipv4 } else { ipv6 })
        });
        let key = owner.map(|owner| (owner.clone(), echoes.address.is_ipv4()));
        let missing = key.and_then(|key| self.answers.get(&key)).copied().unwrap_or_default();
        let unanswered = Self::unanswered(heard, echoes);
        Filtered {
            requests_out: u64::from(echoes.refused),
            requests_in: heard.map_or(0, |(_, dropped)| *dropped),
            answers_out: match discarded.unwrap_or_default() {
                discarded if discarded >= missing => unanswered,
                discarded => unanswered.saturating_mul(discarded) / missing,
            },
            answers_in: u64::from(echoes.dropped),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        probe::ledger::tests::{address, node},
        wire::Heard,
    };

    /// Nodes 1 and 2 each send ten requests to node 3, and receive `got` answers. Node 3 receives `heard` requests of
    /// each node, and discards `discarded` packets.
    fn filtered(got: [usize; 2], heard: u32, discarded: u64) -> [Filtered; 2] {
        let owners: BTreeMap<IpAddr, NodeName> = (1..=3).map(|number| (address(number), node(number))).collect();
        let second = Duration::from_secs(1);
        let probe = || Probe {
            run: 1,
            targets: Vec::new(),
            count: 10,
            settle: second,
            interval: second,
            timeout: second,
            listen: second,
        };
        let echoes = |got| Echoes { sent: 10, rtts_ns: vec![1; got], ..Echoes::of(address(3)) };
        let mut answers: BTreeMap<NodeName, (Probe, Probed)> = BTreeMap::new();
        for (number, got) in [(1, got[0]), (2, got[1])] {
            answers.insert(node(number), (probe(), Probed { echoes: vec![echoes(got)], ..Probed::default() }));
        }
        let heard = |number| Heard {
            from: address(number),
            to: address(3),
            requests: heard,
            dropped: 10 - heard,
            delays_ns: vec![],
        };
        let discards = Discards { ipv4: discarded, ipv6: 99 };
        answers.insert(node(3), (probe(), Probed { heard: vec![heard(1), heard(2)], discards, ..Probed::default() }));
        let missing = Missing::of(&owners, &answers);
        [(1, got[0]), (2, got[1])].map(|(number, got)| missing.filtered(&node(number), &echoes(got)))
    }

    #[test]
    fn requests_that_arrive_at_an_interface_but_at_no_socket_count_as_dropped() {
        let all = Filtered { requests_in: 10, ..Filtered::default() };
        assert_eq!(filtered([0, 0], 0, 0), [all, all]);
        let some = Filtered { requests_in: 7, ..Filtered::default() };
        assert_eq!(filtered([3, 3], 3, 0), [some, some]);
    }

    #[test]
    fn discarded_answers_are_divided_among_pairs_by_their_missing_answers() {
        let out = |answers_out| Filtered { answers_out, ..Filtered::default() };
        assert_eq!(filtered([0, 0], 10, 20), [out(10), out(10)]);
        assert_eq!(filtered([10, 0], 10, 10), [out(0), out(10)], "only answers to node 2 are missing");
        assert_eq!(filtered([10, 0], 10, 0), [out(0), out(0)], "no packet was discarded: the network lost answers");
        assert_eq!(filtered([0, 0], 10, 10), [out(5), out(5)], "each pair gets half of the discarded packets");
        assert_eq!(filtered([10, 10], 10, 500), [out(0), out(0)], "all answers came: the discards are of others");
    }
}
