//! `netemctl partition`: cut nodes off from each other.

use std::{
    process,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{Context, Exit, Failure, apply, scope::ScopeOptions, timing::TimingOptions};
use crate::{
    fleet::Edit,
    plan::{Dice, Division, Draw, Mode, Moment, Over, PartitionRequest, Port, sides},
    topology::Probability,
};

/// What the nodes need to get ready for a moment that is said.
const LEAD: Duration = Duration::from_secs(1);

/// Cut zones or nodes off: each side reaches itself and nobody else
///
/// Each SIDE is a zone, a node, a hostlist, or several of them separated by commas. With a / among them, all that
/// stands between two of them is one side. Nodes that no side names are together one more side, the rest.
///
/// What is cut is dropped silently at both ends, packets in flight included, of established connections and new ones
/// alike. Links keep their delays. Partitions add up, and heal one by one. One that is in force already changes
/// nothing. A topology file may be applied under a partition, which stays.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  netemctl partition Z3                     Z3 | the rest
  netemctl partition Z1 Z2                  Z1 | Z2 | the rest
  netemctl partition Z1,n4                  Z1 and n4 together | the rest
  netemctl partition Z1,Z2 / Z3,n4          Z1 and Z2 | Z3 and n4 | the rest
  netemctl partition --one-way Z1 Z3        Z3 hears nothing from Z1
  netemctl partition Z3 --port tcp/26257    replication dies, the rest lives
  netemctl partition Z3 --loss 30%          three packets in ten die
  netemctl partition n1 --flap 5s/10s       a bad contact
  netemctl partition --halves --for 30s     two random halves, for 30 s
  netemctl partition --minority 2 --seed 7  the same two each time
  netemctl partition --bridge n4            two halves that share n4
  netemctl partition --ring --over zones    each zone sees a majority
  netemctl partition Z1 --isolate           one node of Z1, at random
  netemctl partition --isolate n3           n3 | the rest

What is drawn is drawn from all nodes, or from those that the SIDEs name; the
others are the rest. netemctl heal NAME ends a partition, netemctl heal all.")]
pub(super) struct Partition {
    /// A zone, a node, a hostlist, or several of them separated by commas
    #[arg(value_name = "SIDE", required_unless_present = "generator")]
    sides: Vec<String>,

    /// Cut packets from the first side to the second only, or to the rest; those that come back pass
    #[arg(long)]
    one_way: bool,

    /// Cut only packets to or from this port: tcp/26257, udp/4567; may be said several times
    #[arg(long = "port", value_name = "PROTOCOL/PORT")]
    ports: Vec<Port>,

    /// Lose this share of the packets instead of all, on top of what the links lose
    #[arg(long, value_name = "PERCENT", conflicts_with = "mode")]
    loss: Option<Probability>,

    /// What becomes of packets: they vanish, or they are refused as by a router (TCP reset, ICMP unreachable)
    #[arg(long, value_enum, default_value_t = ModeOption::Drop)]
    mode: ModeOption,

    /// What to call it when it is healed [default: the sides, or what is drawn and the seed]
    #[arg(long)]
    name: Option<String>,

    #[command(flatten, next_help_heading = "Time")]
    timing: TimingOptions,

    #[command(flatten, next_help_heading = "Drawn sides")]
    generator: Generator,

    /// Draw from single nodes [default], or from zones as wholes
    #[arg(long, value_enum, value_name = "NODES|ZONES", hide_possible_values = true, help_heading = "Drawn sides")]
    over: Option<OverOption>,

    /// What the dice start from: the same seed draws the same [default: drawn, and shown]
    #[arg(long, value_name = "NUMBER", help_heading = "Drawn sides")]
    seed: Option<u64>,

    #[command(flatten, next_help_heading = "Fleet")]
    scope: ScopeOptions,
}

/// The sides are drawn instead of said.
#[derive(Debug, clap::Args)]
#[group(id = "generator", multiple = false)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
struct Generator {
    /// Two random halves
    #[arg(long)]
    halves: bool,

    /// So many at random | all others
    #[arg(long, value_name = "NUMBER")]
    minority: Option<usize>,

    /// One alone: a random one, or this node or zone
    #[arg(long, value_name = "NODE|ZONE", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "the option may be there without a value")]
    isolate: Option<Option<String>>,

    /// Each alone
    #[arg(long)]
    isolate_each: bool,

    /// Two random halves that share one: a random one, or this node or zone
    #[arg(long, value_name = "NODE|ZONE", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "the option may be there without a value")]
    bridge: Option<Option<String>>,

    /// A circle in random order: each reaches a majority, and no two the same one
    #[arg(long)]
    ring: bool,

    /// Two to five random sides
    #[arg(long)]
    random: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OverOption {
    Nodes,
    Zones,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ModeOption {
    Drop,
    Reject,
}

impl Partition {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let draw = self.generator.draw();
        if draw.is_some() && self.one_way {
            let hint = "say both sides, as in netemctl partition --one-way Z1 Z3";
            return Err(Failure::new(Exit::Usage, "--one-way: sides that are drawn have no order").hint(hint));
        }
        if draw.is_none() && self.over.is_some() {
            let hint = "it is for drawn sides such as --halves";
            return Err(Failure::new(Exit::Usage, "--over: nothing here is drawn").hint(hint));
        }
        let is_random = draw.as_ref().is_some_and(Draw::is_random) || self.timing.is_random();
        let seed = match self.seed {
            Some(_) if !is_random => {
                let hint = "it is for drawn sides such as --halves, and for --flap with a --spread";
                return Err(Failure::new(Exit::Usage, "--seed: nothing here is left to chance").hint(hint));
            }
            Some(seed) => seed,
            None => draw_seed(),
        };
        let timing = self.timing.timing(now(), LEAD, seed)?;
        let division = match draw {
            Some(draw) => Division::Drawn {
                draw,
                over: self.over.map(Over::from).unwrap_or_default(),
                among: sides(&self.sides),
                seed,
            },
            None if self.one_way => Division::OneWay(sides(&self.sides)),
            None => Division::Sides(sides(&self.sides)),
        };
        let mode = match (self.loss, self.mode) {
            (Some(share), _) => Mode::Loss { loss: share },
            (None, ModeOption::Drop) => Mode::Drop,
            (None, ModeOption::Reject) => Mode::Reject,
        };
        let wish =
            PartitionRequest { name: self.name, division, ports: self.ports.into_iter().collect(), mode, timing };
        let terms = Edit { seed: is_random.then_some(seed), ..Edit::default() };
        apply::change(context, &self.scope, terms, |wanted, inventory| wanted.with_partition(wish.clone(), inventory))
    }
}

impl Generator {
    fn draw(&self) -> Option<Draw> {
        let Self { halves, minority, isolate, isolate_each, bridge, ring, random } = self;
        let flags =
            [(*halves, Draw::Halves), (*isolate_each, Draw::IsolateEach), (*ring, Draw::Ring), (*random, Draw::Random)];
        let flag = flags.into_iter().find_map(|(given, draw)| given.then_some(draw));
        flag.or_else(|| minority.map(Draw::Minority))
            .or_else(|| isolate.clone().map(Draw::Isolate))
            .or_else(|| bridge.clone().map(Draw::Bridge))
    }
}

impl From<OverOption> for Over {
    fn from(over: OverOption) -> Self {
        match over {
            OverOption::Nodes => Self::Nodes,
            OverOption::Zones => Self::Zones,
        }
    }
}

/// A seed that nobody has chosen, short enough to be typed again.
fn draw_seed() -> u64 {
    Dice::new(now().as_nanos() ^ u64::from(process::id()) << 32).throw() & 0xffff
}

/// The time of the wall clock.
pub(super) fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
