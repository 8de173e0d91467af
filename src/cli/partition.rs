//! `netemctl partition`: cuts nodes off from each other.

use std::time::{Duration, SystemTime};

use super::{
    Context, Exit, Failure, apply,
    scope::ScopeOptions,
    timing::{TimingOptions, dice},
};
use crate::{
    fleet::Edit,
    plan::{Division, Draw, Mode, Over, PartitionRequest, Port, sides},
    topology::Probability,
};

/// The time that the nodes need to prepare for `--at`.
const LEAD: Duration = Duration::from_secs(1);

/// Cut zones or nodes off from each other
///
/// A node reaches only nodes on its own side. Each SIDE is a zone, a node, a hostlist, or several of them separated by
/// commas. / separates sides of several words: Z1 n4 / Z2. Nodes on no side form one more side, the rest.
///
/// Packets between sides are dropped silently at both ends: new connections, established connections and packets in
/// flight. Links keep their delays. Partitions add up and heal one by one. Repeating a partition changes nothing. apply
/// keeps partitions.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  netemctl partition Z3                     Z3 | the rest
  netemctl partition Z1 Z2                  Z1 | Z2 | the rest
  netemctl partition Z1,n4                  Z1 and n4 together | the rest
  netemctl partition Z1,Z2 / Z3,n4          Z1 and Z2 | Z3 and n4 | the rest
  netemctl partition --one-way Z1 Z3        drop packets from Z1 to Z3
  netemctl partition Z3 --port tcp/26257    cut this port only
  netemctl partition Z3 --loss 30%          drop 30 % of the packets
  netemctl partition n1 --flap 5s/10s       cut 5 s, heal 10 s, repeat
  netemctl partition --halves --for 30s     two random halves, for 30 s
  netemctl partition --minority 2 --seed 7  the same 2 nodes each time
  netemctl partition --bridge n4            two halves that share n4
  netemctl partition --ring --over zones    each zone reaches a majority
  netemctl partition Z1 --isolate           one node of Z1, at random
  netemctl partition --isolate n3           n3 | the rest

Drawn sides come from all nodes, or from the nodes that SIDE names; other nodes
are the rest. netemctl heal NAME ends a partition, netemctl heal ends all.")]
pub(super) struct Partition {
    /// Zones, nodes or hostlists separated by commas
    ///
    /// With a drawn form such as --halves: draw only from these nodes.
    #[arg(value_name = "SIDE")]
    sides: Vec<String>,

    /// Cut packets from the first side to the second only
    ///
    /// With one side, cuts packets to the rest. Packets in the other direction pass.
    #[arg(long)]
    one_way: bool,

    /// Cut this port only, such as tcp/26257 (repeatable)
    #[arg(long = "port", value_name = "PROTOCOL/PORT")]
    ports: Vec<Port>,

    /// Drop this share of packets instead of all
    ///
    /// The share adds to the loss of the links.
    #[arg(long, value_name = "PERCENT", conflicts_with = "mode")]
    loss: Option<Probability>,

    /// drop or reject packets
    ///
    /// drop is silent. reject answers as a router does, with TCP reset or ICMP unreachable.
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    mode: Mode,

    /// Name for heal [default: such as Z1/Z2 or halves-7]
    #[arg(long)]
    name: Option<String>,

    #[command(flatten, next_help_heading = "Time")]
    timing: TimingOptions,

    #[command(flatten, next_help_heading = "Drawn sides")]
    generator: Generator,

    /// Draw nodes [default] or whole zones
    #[arg(long, value_enum, value_name = "NODES|ZONES", hide_possible_values = true, help_heading = "Drawn sides")]
    over: Option<Over>,

    /// Seed of the draw [default: random, and shown]
    ///
    /// The same seed draws the same sides.
    #[arg(long, value_name = "NUMBER", value_parser = whole_number::<u64>, help_heading = "Drawn sides")]
    seed: Option<u64>,

    #[command(flatten, next_help_heading = "Fleet")]
    scope: ScopeOptions,
}

/// The options that draw the sides, at random or around a given node.
#[derive(Debug, clap::Args)]
#[group(id = "generator", multiple = false)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
struct Generator {
    /// Two random halves
    #[arg(long)]
    halves: bool,

    /// Cut this many random nodes off
    #[arg(long, value_name = "NUMBER", value_parser = whole_number::<usize>)]
    minority: Option<usize>,

    /// Cut one node or zone off, random or given
    #[arg(long, value_name = "NODE|ZONE", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "the option may be there without a value")]
    isolate: Option<Option<String>>,

    /// Each node alone
    #[arg(long)]
    isolate_each: bool,

    /// Two random halves that share a node
    #[arg(long, value_name = "NODE|ZONE", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "the option may be there without a value")]
    bridge: Option<Option<String>>,

    /// Random ring: each reaches a different majority
    #[arg(long)]
    ring: bool,

    /// Two to five random sides
    #[arg(long)]
    random: bool,
}

impl Partition {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let draw = self.generator.draw();
        if draw.is_none() && self.sides.is_empty() {
            return Err(Failure::new(Exit::Usage, "name sides, or a form such as --halves")
                .hint("see examples: netemctl partition --help"));
        }
        if draw.is_some() && self.one_way {
            let hint = "name both sides: netemctl partition --one-way Z1 Z3";
            return Err(Failure::new(Exit::Usage, "--one-way needs named sides: drawn sides have no order").hint(hint));
        }
        if draw.is_none() && self.over.is_some() {
            return Err(Failure::new(Exit::Usage, "--over needs a random form, such as --halves"));
        }
        let is_random = draw.as_ref().is_some_and(Draw::is_random) || self.timing.is_random();
        let seed = match self.seed {
            Some(_) if !is_random => {
                let message = "--seed needs a random form, such as --halves, or --flap with --spread";
                return Err(Failure::new(Exit::Usage, message));
            }
            Some(seed) => seed,
            // A short seed is easy to type.
            None => dice().throw() & 0xffff,
        };
        let timing = self.timing.timing(SystemTime::now().into(), LEAD, seed)?;
        let division = match draw {
            Some(draw) => {
                Division::Drawn { draw, over: self.over.unwrap_or_default(), among: sides(&self.sides), seed }
            }
            None if self.one_way => Division::OneWay(sides(&self.sides)),
            None => Division::Sides(sides(&self.sides)),
        };
        let mode = self.loss.map_or(self.mode, |loss| Mode::Loss { loss });
        let request =
            PartitionRequest { name: self.name, division, ports: self.ports.into_iter().collect(), mode, timing };
        let terms = Edit { seed: is_random.then_some(seed), ..Edit::default() };
        apply::change(context, &self.scope, terms, false, |wanted, inventory| {
            wanted.with_partition(request.clone(), inventory)
        })
    }
}

fn whole_number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .map_err(|_| if is_number { format!("{text} is too large") } else { format!("{text} is not a whole number") })
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
