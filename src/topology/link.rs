//! A link and its parameters (tc-netem(8)): [`Link`].
//!
//! `rules` computes the link between two nodes. `patch` has the parameters of one rule. `parameters` reads the
//! parameters from TOML.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    json_text,
    units::{BitRate, Bytes, Delay, Probability, ShortTime},
};

/// The properties of the network from one node to another, in addition to those of the LAN.
///
/// A link has one direction. The opposite direction is a separate link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The one-way delay of packets. With jitter, the mean delay.
    #[serde(rename = "delay_ms")]
    pub delay: Delay,
    /// The variation of the delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Jitter>,
    /// The loss of packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// The share of packets with one flipped bit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<Chance>,
    /// The share of packets that arrive twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Chance>,
    /// The packets that overtake others. `None`: packets keep their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reorder: Option<Reorder>,
    /// The rate of the link. `None`: the rate of the LAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// The links that share the rate.
    #[serde(default, skip_serializing_if = "RatePer::is_node")]
    pub rate_per: RatePer,
    /// The times at which the link sends, for shared media such as Wi-Fi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// The largest number of packets in flight and in the queue. `None`: computed from the rate and the delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The seed of the random numbers, for losses that repeat from run to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl Link {
    /// True if the link adds nothing to the LAN, as `Link::default()`. A limit and a seed alone add nothing.
    pub fn is_lan(&self) -> bool {
        Self { limit: None, seed: None, ..*self } == Self::default()
    }

    /// The parameters that the link has.
    pub fn parameters(&self) -> impl Iterator<Item = Parameter> + use<> {
        let link = *self;
        Parameter::ALL.into_iter().filter(move |parameter| Self::default().with(*parameter, &link) != Self::default())
    }

    /// This link, with one parameter replaced by that of another link.
    #[must_use]
    pub(super) fn with(mut self, parameter: Parameter, other: &Self) -> Self {
        match parameter {
            Parameter::Delay => self.delay = other.delay,
            Parameter::Jitter => self.jitter = other.jitter,
            Parameter::Loss => self.loss = other.loss,
            Parameter::Corrupt => self.corrupt = other.corrupt,
            Parameter::Duplicate => self.duplicate = other.duplicate,
            Parameter::Reorder => self.reorder = other.reorder,
            Parameter::Rate => (self.rate, self.rate_per) = (other.rate, other.rate_per),
            Parameter::Slot => self.slot = other.slot,
            Parameter::Limit => self.limit = other.limit,
            Parameter::Seed => self.seed = other.seed,
        }
        self
    }
}

/// A parameter of a link.
///
/// A rule that sets a parameter replaces the whole parameter of earlier rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Parameter {
    /// `delay` or `rtt`.
    Delay,
    /// `jitter`, with its correlation and distribution.
    Jitter,
    /// `loss`.
    Loss,
    /// `corrupt`.
    Corrupt,
    /// `duplicate`.
    Duplicate,
    /// `reorder`.
    Reorder,
    /// `rate`, with its overheads and `rate-per`.
    Rate,
    /// `slot`.
    Slot,
    /// `limit`.
    Limit,
    /// `seed`.
    Seed,
}

impl Parameter {
    /// All parameters, in the order in which messages name them.
    pub const ALL: [Self; 10] = [
        Self::Delay,
        Self::Jitter,
        Self::Loss,
        Self::Corrupt,
        Self::Duplicate,
        Self::Reorder,
        Self::Rate,
        Self::Slot,
        Self::Limit,
        Self::Seed,
    ];

    const NAMES: [&str; 10] =
        ["delay", "jitter", "loss", "corrupt", "duplicate", "reorder", "rate", "slot", "limit", "seed"];
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Self::NAMES[*self as usize])
    }
}

/// The variation of a delay from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Jitter {
    /// The standard deviation. For the uniform distribution, half of the width.
    ///
    /// Never zero, at most [`Jitter::MAX`].
    #[serde(rename = "amount_ms")]
    pub amount: Delay,
    /// The weight of the previous random number in the next random number.
    pub correlation: Probability,
    /// The distribution of the delays around their mean.
    pub distribution: Distribution,
}

impl Jitter {
    /// The kernel's limit: 31 bits of nanoseconds. `netem_change` silently reduces larger values.
    pub const MAX: Delay = ShortTime::MAX;
}

/// The distribution of a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(with = "String"))]
pub enum Distribution {
    /// Uniform, from the mean minus the jitter to the mean plus the jitter.
    #[default]
    Uniform,
    /// Normal (Gaussian).
    Normal,
    /// Pareto with shape 3: most delays are slightly below the mean, a few are far above the mean.
    Pareto,
    /// A mix of 25 % normal and 75 % Pareto.
    ParetoNormal,
    /// A distribution table of the user.
    Table(TableId),
}

impl Distribution {
    /// The distributions with names, as in a topology file.
    pub(super) const NAMED: [(&'static str, Self); 4] = [
        ("uniform", Self::Uniform),
        ("normal", Self::Normal),
        ("pareto", Self::Pareto),
        ("paretonormal", Self::ParetoNormal),
    ];
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, Self::NAMED.iter().find(|(_, named)| named == self)) {
            (Self::Table(id), _) => f.pad(&format!("table-{id}")),
            (_, named) => f.pad(named.map_or("", |(name, _)| name)),
        }
    }
}

json_text!(Distribution);

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::NAMED.into_iter().find(|(name, _)| *name == text).map(|(_, named)| named);
        let table = || {
            let id = u32::from_str_radix(text.strip_prefix("table-")?, 16).ok()?;
            Some(Self::Table(TableId::new(id))).filter(|table| table.to_string() == text)
        };
        named.or_else(table).ok_or_else(|| format!("`{text}` is not a distribution"))
    }
}

/// The identity of a distribution table: 24 bits of the SHA-256 of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct TableId(u32);

impl TableId {
    /// The number of bits.
    pub const BITS: u32 = 24;

    /// The identity with the lowest [`Self::BITS`] bits of this number.
    pub const fn new(number: u32) -> Self {
        Self(number & ((1 << Self::BITS) - 1))
    }

    /// The number, less than 2^24.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06x}", self.0)
    }
}

/// The probability that a packet is lost, corrupted, duplicated or reordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Chance {
    /// The share of affected packets. Never zero.
    pub probability: Probability,
    /// The weight of the previous random number in the next random number.
    pub correlation: Probability,
}

/// The loss of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// The model.
    pub model: LossModel,
    /// True: ECN-capable packets (RFC 3168) are marked instead of lost.
    pub ecn: bool,
}

/// The model that chooses the lost packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum LossModel {
    /// All packets have the same probability of loss. Without a correlation, the losses are independent of each other.
    Random(Chance),
    /// A Markov chain of four states: 1 received in a gap, 2 received in a burst, 3 lost in a burst, 4 lost in a gap.
    State {
        /// The probability of the transition from state 1 to state 3.
        p13: Probability,
        /// The probability of the transition from state 3 to state 1.
        p31: Probability,
        /// The probability of the transition from state 3 to state 2.
        p32: Probability,
        /// The probability of the transition from state 2 to state 3.
        p23: Probability,
        /// The probability of the transition from state 1 to state 4.
        p14: Probability,
    },
    /// The Gilbert-Elliott model: a Markov chain of a good state and a bad state.
    GeModel {
        /// The probability of the transition from the good state to the bad state.
        p: Probability,
        /// The probability of the transition from the bad state to the good state.
        r: Probability,
        /// The share of lost packets in the bad state: `1-h` in tc-netem(8).
        bad: Probability,
        /// The share of lost packets in the good state: `1-k` in tc-netem(8).
        good: Probability,
    },
}

/// The mean loss below which a model is reported as ineffective.
const INEFFECTIVE_LOSS: f64 = 1e-6;

impl LossModel {
    /// The mean share of lost packets, 0 to 1. For a correlated loss, the configured probability.
    pub fn mean(self) -> f64 {
        match self {
            Self::Random(chance) => chance.probability.share(),
            Self::State { p13, p31, p32, p23, p14 } => {
                let [p13, p31, p32, p23, p14] = [p13, p31, p32, p23, p14].map(Probability::share);
                markov_loss(p13, p31, p32, p23, p14)
            }
            Self::GeModel { p, r, bad, good } => {
                let [p, r, bad, good] = [p, r, bad, good].map(Probability::share);
                // A chain without transitions stays in the good state.
                if p + r > 0.0 { (p * bad + r * good) / (p + r) } else { good }
            }
        }
    }

    /// The reason why the kernel loses fewer packets than configured. `None` if there is no such reason.
    pub fn shortfall_reason(self) -> Option<&'static str> {
        match self {
            Self::Random(chance) if chance.correlation > Probability::ZERO => {
                Some("correlation reduces the loss in the kernel (docs/links.md)")
            }
            _ if self.mean() < INEFFECTIVE_LOSS => {
                Some("the mean loss of this model is almost zero (docs/links.md has the formula)")
            }
            _ => None,
        }
    }
}

/// The mean loss of netem's chain of four states: the share of packets that lead to state 3 or 4.
///
/// State 1 always follows state 4 (`loss_4state`). In equilibrium, the transitions between two states are equally
/// frequent in both directions: between states 1 and 3, and between states 2 and 3.
fn markov_loss(p13: f64, p31: f64, p32: f64, p23: f64, p14: f64) -> f64 {
    let [one, two, three, four] = [p31 * p23, p13 * p32, p13 * p23, p14 * p31 * p23];
    let all = one + two + three + four;
    if all > 0.0 {
        (three + four) / all
    } else if p13 + p31 > 0.0 {
        // The chain never reaches state 2.
        (p13 + p14 * p31) / (p31 + p13 + p14 * p31)
    } else {
        // The chain never reaches states 2 and 3.
        p14 / (1.0 + p14)
    }
}

/// The packets that overtake others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Reorder {
    /// Packets with a small random delay overtake packets with a large random delay.
    Jitter,
    /// Packets without any delay overtake others. All other packets keep their order.
    Undelayed(Undelayed),
}

/// The choice of the packets without any delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Undelayed {
    /// The probability for each packet that may overtake.
    pub chance: Chance,
    /// One packet of every `gap` packets may overtake; 1: any packet.
    pub gap: u32,
}

/// The rate of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// The rate of Ethernet frames. The preamble, the checksum and the gap between frames do not count.
    pub bits: BitRate,
    /// Additional bytes of each packet; may be negative.
    pub packet_overhead: Bytes,
    /// The payload of one of the cells that carry a packet; 0: no cells.
    pub cell_size: Bytes,
    /// Additional bytes of each cell; may be negative.
    pub cell_overhead: Bytes,
}

impl Rate {
    /// A rate without overheads.
    pub const fn plain(bits: BitRate) -> Self {
        let none = Bytes::new(0);
        Self { bits, packet_overhead: none, cell_size: none, cell_overhead: none }
    }
}

/// The links that share a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum RatePer {
    /// Each link has the whole rate: each pair of nodes in each direction.
    #[default]
    Node,
    /// On each sending node, equal links to the nodes of one zone share the rate.
    Zone,
}

impl RatePer {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_node(&self) -> bool {
        *self == Self::Node
    }
}

/// The times at which a link sends. Packets wait for the next slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// The time from one slot to the next.
    pub spacing: Spacing,
    /// The number of packets in a slot; 0: no limit.
    pub packets: u32,
    /// The number of bytes in a slot; 0: no limit.
    pub bytes: Bytes,
}

/// The time from one slot to the next, at most [`Jitter::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Spacing {
    /// A uniform distribution between two times.
    Range {
        /// The shortest time.
        #[serde(rename = "min_ms")]
        min: Delay,
        /// The longest time.
        #[serde(rename = "max_ms")]
        max: Delay,
    },
    /// Another distribution around a mean.
    Distributed {
        /// The mean.
        #[serde(rename = "delay_ms")]
        delay: Delay,
        /// The standard deviation.
        #[serde(rename = "jitter_ms")]
        jitter: Delay,
        /// The distribution.
        distribution: Distribution,
    },
}
