//! The partitions in force, as `partition`, `heal` and `status` show them: sides, packets, mode and time left.

use std::{collections::BTreeSet, time::Duration};

use serde::Serialize;

use super::{
    overlays::{time, word_for},
    render::table,
};
use crate::{
    plan::{Flap, Mode, Moment, Partition, Port, Shape, Timing, Wanted},
    topology::{NodeName, Probability},
    wire::NodeStatus,
};

/// One partition in force.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Parted {
    name: String,
    kind: Kind,
    /// The sides.
    ///
    /// A one-way partition has the senders first, then the receivers. A ring has its nodes or zones in their order.
    sides: Vec<BTreeSet<NodeName>>,
    /// The nodes on no side, which form one more side.
    ///
    /// Empty for a one-way partition: its other nodes reach all nodes.
    rest: BTreeSet<NodeName>,
    /// The number of neighbours that each position of a ring reaches on each side; absent: not a ring.
    #[serde(skip_serializing_if = "Option::is_none")]
    reach: Option<usize>,
    /// True if packets in the other direction pass.
    one_way: bool,
    /// The ports whose packets are cut; empty: all packets.
    ports: BTreeSet<Port>,
    mode: ModeKind,
    /// The share of packets that is lost; absent: all packets are cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    loss: Option<Probability>,
    /// `None`: the partition began at once and lasts until `heal`.
    timing: Option<Timed>,
    /// The packets that the partition's filters have dropped since their creation, on all nodes that answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<u64>,
    #[serde(skip)]
    in_words: Words,
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Sides,
    Bridge,
    OneWay,
    Ring,
}

#[derive(Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
enum ModeKind {
    Drop,
    Reject,
    Loss,
}

/// The times of a partition that begins later, ends by itself, or flaps.
#[derive(Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Timed {
    /// The beginning, in UTC (RFC 3339).
    begins: String,
    /// The duration from the beginning, in seconds; `None`: until `heal`.
    #[serde(rename = "lasts_s")]
    lasts: Option<f64>,
    /// The seconds until the end; `None`: until `heal`.
    #[serde(rename = "left_s")]
    left: Option<f64>,
    /// True if the partition cuts now.
    is_on: bool,
    /// The seconds until `is_on` changes; `None`: never.
    #[serde(rename = "changes_in_s")]
    changes_in: Option<f64>,
    flap: Option<Flapping>,
    /// True if the partition has not begun.
    #[serde(skip)]
    is_ahead: bool,
}

#[derive(Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Flapping {
    /// The seconds for which the partition cuts.
    #[serde(rename = "down_s")]
    down: f64,
    /// The seconds for which the partition does not cut.
    #[serde(rename = "up_s")]
    up: f64,
    /// The variation of each change, in percent of the shorter of `down_s` and `up_s`.
    spread: u8,
    seed: u64,
}

/// The texts about a partition, for people: its sides, its packets, and the effect on the packets.
type Words = [String; 3];

/// The partitions of a document, with their times at `now` by the controller's clock.
pub(super) fn parted(wanted: &Wanted, now: Moment) -> Vec<Parted> {
    wanted.partitions.iter().map(|partition| Parted::of(partition, wanted, now)).collect()
}

/// The name of a partition, followed by details that the name does not have: sides, ports, mode and times.
///
/// `is_healed`: the partition is between two turns.
pub(super) fn sentence(wanted: &Wanted, partition: &Partition, is_healed: bool) -> String {
    let [sides, packets, effect] = words(partition, wanted);
    let mut details = Vec::new();
    let words = match &partition.shape {
        Shape::Sides { sides } => sides.iter().map(|side| word_for(wanted, side)).collect::<Vec<_>>().join("/"),
        _ => String::new(),
    };
    if words != partition.name || is_healed {
        details.push(sides);
    }
    if !partition.ports.is_empty() {
        details.push(packets);
    }
    if partition.mode != Mode::Drop {
        details.push(effect);
    }
    details.extend(partition.timing.map(schedule));
    if is_healed {
        details.push("now healed".to_owned());
    }
    let details = if details.is_empty() { String::new() } else { format!(" ({})", details.join("; ")) };
    format!("partition {}{details}", partition.name)
}

/// Draws a table of the partitions, and a line for each partition that has cut nothing so far.
pub(super) fn draw(partitions: &[Parted]) -> String {
    let row = |Parted { name, in_words: [sides, packets, effect], cut, timing, .. }: &Parted| {
        let cut = cut.map(|cut| cut.to_string()).unwrap_or_default();
        let time = timing.as_ref().map(Timed::says).unwrap_or_default();
        [name, sides, packets, effect, &cut, &time].map(String::clone).to_vec()
    };
    let header = ["PARTITION", "SIDES", "PACKETS", "MODE", "PACKETS CUT", "TIME"];
    let mut text = table(&header, partitions.iter().map(row));
    for Parted { name, ports, timing, .. } in partitions.iter().filter(|partition| partition.cut == Some(0)) {
        let why = if timing.as_ref().is_some_and(|timing| timing.flap.is_some()) {
            "packets of earlier turns are not counted".to_owned()
        } else {
            cut_nothing(ports)
        };
        text += &format!("partition {name} has cut 0 packets: {why}\n");
    }
    text
}

/// The reason why a partition with these ports has cut nothing.
pub(super) fn cut_nothing(ports: &BTreeSet<Port>) -> String {
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let which = if ports.is_empty() { String::new() } else { format!(" to or from {}", ports.join(", ")) };
    format!("no node sent any{which} to another side")
}

impl Parted {
    /// Adds the numbers of packets that the nodes have counted.
    pub(super) fn counted<'s>(self, nodes: impl Iterator<Item = &'s NodeStatus>) -> Self {
        let own = nodes.flat_map(|node| &node.partitions).filter(|partition| partition.name == self.name);
        Self { cut: own.filter_map(|partition| partition.cut).reduce(|one, other| one + other), ..self }
    }

    /// True if this is the partition `name`, and it has not begun.
    pub(super) fn begins_later(&self, name: &str) -> bool {
        self.name == name && self.timing.as_ref().is_some_and(|timing| timing.is_ahead)
    }

    fn of(partition: &Partition, wanted: &Wanted, now: Moment) -> Self {
        let Partition { name, shape, ports, mode, timing, since: _ } = partition;
        let kind = kind(shape);
        Self {
            name: name.clone(),
            kind,
            sides: match shape {
                Shape::Sides { sides: sets } | Shape::Ring { order: sets, .. } => sets.clone(),
                Shape::OneWay { from, to } => vec![from.clone(), to.clone()],
            },
            rest: if kind == Kind::OneWay { BTreeSet::new() } else { rest(shape, wanted) },
            reach: match shape {
                Shape::Ring { reach, .. } => Some(*reach),
                _ => None,
            },
            one_way: kind == Kind::OneWay,
            ports: ports.clone(),
            mode: match mode {
                Mode::Drop => ModeKind::Drop,
                Mode::Reject => ModeKind::Reject,
                Mode::Loss { .. } => ModeKind::Loss,
            },
            loss: match mode {
                Mode::Loss { loss: share } => Some(*share),
                _ => None,
            },
            in_words: words(partition, wanted),
            timing: timing.map(|timing| Timed::of(timing, now)),
            cut: None,
        }
    }
}

impl Timed {
    fn of(timing: Timing, now: Moment) -> Self {
        let seconds = |time: Duration| time.as_secs_f64();
        let Timing { begins, lasts, flap } = timing;
        let waits = begins.since(now).filter(|wait| !wait.is_zero());
        let elapsed = now.since(begins).unwrap_or_default();
        let phase = timing.phase(elapsed);
        Self {
            begins: begins.to_string(),
            lasts: lasts.map(seconds),
            left: lasts.map(|lasts| seconds(waits.unwrap_or_default() + lasts.saturating_sub(elapsed))),
            is_ahead: waits.is_some(),
            is_on: waits.is_none() && phase.is_on,
            changes_in: waits.or_else(|| Some(phase.until?.saturating_sub(elapsed))).map(seconds),
            flap: flap.map(|Flap { down, up, spread, seed }| Flapping {
                down: seconds(down),
                up: seconds(up),
                spread,
                seed,
            }),
        }
    }

    fn says(&self) -> String {
        let state = match (self.is_on, self.changes_in, self.flap.is_some()) {
            (false, Some(change), false) => Some(format!("begins in {}", time(change))),
            (false, Some(change), true) => Some(format!("healed, cuts again in {}", time(change))),
            (true, Some(change), true) => Some(format!("cut, heals in {}", time(change))),
            _ => None,
        };
        // The time left includes the wait for the beginning.
        let is_ahead = !self.is_on && self.flap.is_none();
        let left = match self.lasts.filter(|_| is_ahead) {
            Some(lasts) => Some(format!("lasts {}", time(lasts))),
            None => self.left.map(|left| format!("{} left", time(left))),
        };
        state.into_iter().chain(left).collect::<Vec<_>>().join(", ")
    }
}

fn words(partition: &Partition, wanted: &Wanted) -> Words {
    let ports: Vec<String> = partition.ports.iter().map(ToString::to_string).collect();
    let packets = if ports.is_empty() { "all".to_owned() } else { ports.join(", ") };
    let effect = match partition.mode {
        Mode::Drop => "dropped".to_owned(),
        Mode::Reject => "rejected".to_owned(),
        Mode::Loss { loss: share } => format!("{share} lost"),
    };
    [sides(&partition.shape, wanted), packets, effect]
}

fn kind(shape: &Shape) -> Kind {
    match shape {
        Shape::Sides { sides } => {
            let mut seen = BTreeSet::new();
            let is_shared = sides.iter().flatten().any(|node| !seen.insert(node));
            if is_shared { Kind::Bridge } else { Kind::Sides }
        }
        Shape::OneWay { .. } => Kind::OneWay,
        Shape::Ring { .. } => Kind::Ring,
    }
}

fn rest(shape: &Shape, wanted: &Wanted) -> BTreeSet<NodeName> {
    let named: BTreeSet<&NodeName> = shape.nodes().collect();
    wanted.inventory.nodes.keys().filter(|node| !named.contains(node)).cloned().collect()
}

/// The sides in words: `Z3 | the rest`, `n[1-4] | n[4-7], bridged by n4`, `Z1 → Z3`, `ring of n3 n1 n5 n2 n4`.
fn sides(shape: &Shape, wanted: &Wanted) -> String {
    let word = |nodes: &BTreeSet<NodeName>| word_for(wanted, nodes);
    let rest = if rest(shape, wanted).is_empty() { "" } else { " | the rest" };
    match shape {
        Shape::Sides { sides } => {
            let words: Vec<String> = sides.iter().map(word).collect();
            let bridge = match sides.as_slice() {
                [one, other] if kind(shape) == Kind::Bridge => format!(", bridged by {}", word(&(one & other))),
                _ => String::new(),
            };
            format!("{}{rest}{bridge}", words.join(" | "))
        }
        Shape::OneWay { from, to } => format!("{} → {}", word(from), word(to)),
        Shape::Ring { order, .. } => {
            let words: Vec<String> = order.iter().map(word).collect();
            format!("ring of {}{rest}", words.join(" "))
        }
    }
}

/// The beginning, duration and flapping of a partition, independent of the present time.
fn schedule(timing: Timing) -> String {
    let seconds = |time_of: Duration| time(time_of.as_secs_f64());
    let Timing { begins, lasts, flap } = timing;
    let when = match lasts {
        Some(lasts) => format!("{} from {begins}", seconds(lasts)),
        None => format!("from {begins} on"),
    };
    let flap = flap.map(|flap| format!(", {} cut, {} healed in turn", seconds(flap.down), seconds(flap.up)));
    when + &flap.unwrap_or_default()
}
