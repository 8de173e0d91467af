//! What a packet meets on its way from one node to another: [`Link`] and its parameters (`tc-netem(8)`).
//!
//! Which rule says so of which nodes is `rules`' matter, what one rule says is `patch`'s, how it is written
//! `parameters`'.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::units::{BitRate, Bytes, Delay, Probability};

/// What a packet from one node to another meets, on top of the LAN itself. One direction; the way back is its own link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// How long the packet is held back, one way; with jitter, on average.
    #[serde(rename = "delay_ms")]
    pub delay: Delay,
    /// How much the delay varies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Jitter>,
    /// Which packets are lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// How many packets have one bit flipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<Chance>,
    /// How many packets arrive twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Chance>,
    /// Which packets overtake others; `None`: they arrive in the order in which they were sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reorder: Option<Reorder>,
    /// How fast the link is; `None`: as fast as the LAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// What shares the rate, if there is one.
    #[serde(default, skip_serializing_if = "RatePer::is_node")]
    pub rate_per: RatePer,
    /// When the link sends at all, for media that are shared in turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// How many packets may be under way at once; `None`: as many as the rate and the delay need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// What the dice start from, for losses that repeat from run to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl Link {
    /// The LAN as it is, to which nothing is added.
    pub const LAN: Self = Self {
        delay: Delay::ZERO,
        jitter: None,
        loss: None,
        corrupt: None,
        duplicate: None,
        reorder: None,
        rate: None,
        rate_per: RatePer::Node,
        slot: None,
        limit: None,
        seed: None,
    };

    /// Whether nothing is added to the LAN. A limit and a seed alone add nothing.
    pub fn is_lan(&self) -> bool {
        Self { limit: None, seed: None, ..*self } == Self::LAN
    }

    /// The names of the parameters that it has, and nothing of those that it has not.
    pub fn parameters(&self) -> impl Iterator<Item = Parameter> + use<> {
        let Self { delay, jitter, loss, corrupt, duplicate, reorder, rate, rate_per: _, slot, limit, seed } = *self;
        let said = [
            (Parameter::Delay, delay > Delay::ZERO),
            (Parameter::Jitter, jitter.is_some()),
            (Parameter::Loss, loss.is_some()),
            (Parameter::Corrupt, corrupt.is_some()),
            (Parameter::Duplicate, duplicate.is_some()),
            (Parameter::Reorder, reorder.is_some()),
            (Parameter::Rate, rate.is_some()),
            (Parameter::Slot, slot.is_some()),
            (Parameter::Limit, limit.is_some()),
            (Parameter::Seed, seed.is_some()),
        ];
        said.into_iter().filter_map(|(parameter, is_said)| is_said.then_some(parameter))
    }
}

/// The parameters of a link, each of which a later rule replaces as a whole.
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
    /// `rate`, with its overheads and what shares it.
    Rate,
    /// `slot`.
    Slot,
    /// `limit`.
    Limit,
    /// `seed`.
    Seed,
}

impl Parameter {
    /// All of them, in the order in which they are told.
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
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Delay => "delay",
            Self::Jitter => "jitter",
            Self::Loss => "loss",
            Self::Corrupt => "corrupt",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Rate => "rate",
            Self::Slot => "slot",
            Self::Limit => "limit",
            Self::Seed => "seed",
        })
    }
}

/// How much a delay varies from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Jitter {
    /// One standard deviation; of the uniform distribution, half the width. Never zero, at most [`Jitter::MAX`].
    #[serde(rename = "amount_ms")]
    pub amount: Delay,
    /// How much of each packet's draw is the draw before it.
    pub correlation: Probability,
    /// How the delays are distributed around their mean.
    pub distribution: Distribution,
}

impl Jitter {
    /// The most that the kernel takes: 31 bits of nanoseconds (`netem_change` caps it silently).
    pub const MAX: Delay = Delay::from_nanos(i32::MAX as u64);
}

/// How a time that varies is distributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub enum Distribution {
    /// Evenly, from one jitter less than the mean to one jitter more.
    #[default]
    Uniform,
    /// Gauss's bell.
    Normal,
    /// Pareto's, of shape 3: most delays a little short, a few very long.
    Pareto,
    /// A quarter normal, three quarters Pareto.
    ParetoNormal,
    /// One of the user's own.
    Table(TableId),
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.pad("uniform"),
            Self::Normal => f.pad("normal"),
            Self::Pareto => f.pad("pareto"),
            Self::ParetoNormal => f.pad("paretonormal"),
            Self::Table(id) => f.pad(&format!("table-{id}")),
        }
    }
}

impl From<Distribution> for String {
    fn from(distribution: Distribution) -> Self {
        distribution.to_string()
    }
}

impl TryFrom<String> for Distribution {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let named = [Self::Uniform, Self::Normal, Self::Pareto, Self::ParetoNormal];
        let table =
            || u32::from_str_radix(text.strip_prefix("table-")?, 16).ok().map(|id| Self::Table(TableId::new(id)));
        let found = named.into_iter().find(|named| named.to_string() == text).or_else(table);
        found.filter(|found| found.to_string() == text).ok_or_else(|| format!("`{text}` is no distribution"))
    }
}

/// Names a distribution table by what is in it: 24 bits of its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct TableId(u32);

impl TableId {
    /// How many bits it has.
    pub const BITS: u32 = 24;

    /// The identity with this number, of which only the lowest [`Self::BITS`] count.
    pub const fn new(number: u32) -> Self {
        Self(number & ((1 << Self::BITS) - 1))
    }

    /// Its number, less than 2^24.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06x}", self.0)
    }
}

/// How likely something happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Chance {
    /// Of how many packets. Never zero.
    pub probability: Probability,
    /// How much of each packet's draw is the draw before it.
    pub correlation: Probability,
}

/// Which packets are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// How they are chosen.
    pub model: LossModel,
    /// Whether packets that can carry a congestion mark (RFC 3168) are marked instead of lost.
    pub ecn: bool,
}

/// How the packets that are lost are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum LossModel {
    /// Each by itself.
    Random(Chance),
    /// By a Markov chain of four states: 1 received in a gap, 2 received in a burst, 3 lost in a burst, 4 lost in a gap.
    State {
        /// From 1 to 3.
        p13: Probability,
        /// From 3 to 1.
        p31: Probability,
        /// From 3 to 2.
        p32: Probability,
        /// From 2 to 3.
        p23: Probability,
        /// From 1 to 4.
        p14: Probability,
    },
    /// By Gilbert and Elliott's chain of a good and a bad state.
    GeModel {
        /// From good to bad.
        p: Probability,
        /// From bad to good.
        r: Probability,
        /// The loss in the bad state (`1-h`).
        bad: Probability,
        /// The loss in the good state (`1-k`).
        good: Probability,
    },
}

/// What is to lose packets and loses fewer loses none that anybody would notice.
const LOSES_NOTHING: f64 = 1e-6;

impl LossModel {
    /// The share of packets that are lost in the long run, 0 to 1; of a correlated loss, the share that is asked for.
    pub fn mean(self) -> f64 {
        match self {
            Self::Random(chance) => chance.probability.share(),
            Self::State { p13, p31, p32, p23, p14 } => {
                let [p13, p31, p32, p23, p14] = [p13, p31, p32, p23, p14].map(Probability::share);
                markov_loss(p13, p31, p32, p23, p14)
            }
            Self::GeModel { p, r, bad, good } => {
                let [p, r, bad, good] = [p, r, bad, good].map(Probability::share);
                // A chain that never changes stays in the good state, in which it begins.
                if p + r > 0.0 { (p * bad + r * good) / (p + r) } else { good }
            }
        }
    }

    /// That the kernel makes less of it than it seems to say, if so.
    pub fn doubt(self) -> Option<&'static str> {
        match self {
            Self::Random(chance) if chance.correlation > Probability::ZERO => {
                Some("the kernel loses far fewer when they are correlated (docs/links.md)")
            }
            _ if self.mean() < LOSES_NOTHING => Some("this model loses next to nothing (docs/links.md has its mean)"),
            _ => None,
        }
    }
}

/// The share of packets that netem's chain of four states loses in the long run: those that lead to state 3 or 4.
///
/// From 4 it always goes on to 1 (`loss_4state`). In balance, as many go from 1 to 3 as from 3 to 1, and from 2 to 3 as
/// from 3 to 2.
fn markov_loss(p13: f64, p31: f64, p32: f64, p23: f64, p14: f64) -> f64 {
    let [one, two, three, four] = [p31 * p23, p13 * p32, p13 * p23, p14 * p31 * p23];
    let all = one + two + three + four;
    if all > 0.0 {
        (three + four) / all
    } else if p13 + p31 > 0.0 {
        // State 2 is never met.
        (p13 + p14 * p31) / (p31 + p13 + p14 * p31)
    } else {
        // Nor is 3.
        p14 / (1.0 + p14)
    }
}

/// Which packets overtake others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Reorder {
    /// Those whose jitter is that much less.
    Jitter,
    /// Some that are not delayed at all; the others keep their order.
    Undelayed(Undelayed),
}

/// Packets that are not delayed at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Undelayed {
    /// How many of those that may be.
    pub chance: Chance,
    /// Only every so many packets may; 1: each.
    pub gap: u32,
}

/// How fast a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Of the Ethernet frames, without preamble, checksum and gap.
    pub bits: BitRate,
    /// What each packet takes besides its own bytes; may be negative.
    pub packet_overhead: Bytes,
    /// The size of the cells in which a packet is carried; 0: none.
    pub cell_size: Bytes,
    /// What each cell takes besides its payload; may be negative.
    pub cell_overhead: Bytes,
}

impl Rate {
    /// A rate without overheads.
    pub const fn plain(bits: BitRate) -> Self {
        let none = Bytes::new(0);
        Self { bits, packet_overhead: none, cell_size: none, cell_overhead: none }
    }
}

/// What a rate belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum RatePer {
    /// Each pair of nodes, in each direction.
    #[default]
    Node,
    /// On each sending node, all nodes of one zone together whose links are alike.
    Zone,
}

impl RatePer {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_node(&self) -> bool {
        *self == Self::Node
    }
}

/// When a link sends: packets wait for the next slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// From one slot to the next.
    pub spacing: Spacing,
    /// How many packets a slot takes; 0: any number.
    pub packets: u32,
    /// How many bytes a slot takes; 0: any number.
    pub bytes: Bytes,
}

/// The time from one slot to the next, at most [`Jitter::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Spacing {
    /// Evenly between the two.
    Range {
        /// At least.
        #[serde(rename = "min_ms")]
        min: Delay,
        /// At most.
        #[serde(rename = "max_ms")]
        max: Delay,
    },
    /// Distributed around a mean.
    Distributed {
        /// The mean.
        #[serde(rename = "delay_ms")]
        delay: Delay,
        /// As in [`Jitter::amount`].
        #[serde(rename = "jitter_ms")]
        jitter: Delay,
        /// In which way.
        distribution: Distribution,
    },
}
