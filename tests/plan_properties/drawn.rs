//! Random shapings, kernels and documents.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use netemctl::{
    kernel::execute,
    plan::{
        AgentAddress, Answer, Change, Cut, Direction, Division, Draw, Inventory, LeafSpec, LineRate, Mode,
        NodeLocation, Over, OverlayRequest, PartitionRequest, Port, Profile, Protocol, Shaping, Traffic, Tree, Wanted,
        diff,
    },
    topology::{Distribution, Jitter, Link, LinkChange, NodeName, Probability, Rate, Reorder, Source, Topology},
};
use proptest::prelude::*;

use crate::fake_kernel::FakeKernel;

const ADDRESSES: [&str; 8] =
    ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "fd00::2", "fd00::3", "fd00::4"];

/// Delays and limits. The list is short, so shapings often share profiles. Two entries differ only in the limit.
const PROFILES: [(&str, u32); 5] =
    [("10ms", 16_666), ("75ms", 100_000), ("75ms", 12_500), ("1us", 1_000), ("60s", 100_000)];

fn addresses() -> impl Strategy<Value = IpAddr> {
    prop::sample::select(ADDRESSES.map(|address| address.parse().unwrap()).to_vec())
}

fn profiles() -> impl Strategy<Value = Profile> {
    let plain = PROFILES.map(|(delay, limit)| Profile::plain(delay.parse().unwrap(), limit));
    // Some profiles have memory (`Profile::has_memory`), others a distribution table.
    let link = Link { delay: plain[0].delay, rate: Some(Rate::plain("1gbit".parse().unwrap())), ..Link::default() };
    let jitter = |distribution| Some(Jitter { amount: plain[3].delay, correlation: Probability::ZERO, distribution });
    let links = [
        link,
        Link { delay: plain[1].delay, ..link },
        Link { jitter: jitter(Distribution::Normal), rate: None, ..link },
        Link { jitter: jitter(Distribution::Pareto), rate: None, ..link },
        Link { jitter: jitter(Distribution::Pareto), rate: None, reorder: Some(Reorder::Jitter), ..link },
    ];
    let more = links.iter().filter_map(|link| Profile::of(link, LineRate::UNKNOWN));
    prop::sample::select(plain.into_iter().chain(more).collect::<Vec<_>>())
}

pub(crate) fn cuts() -> impl Strategy<Value = Cut> {
    let port = Port { protocol: Protocol::Tcp, number: 26257 };
    let traffics = vec![
        Traffic::All,
        Traffic::ToPort { port },
        Traffic::FromPort { port },
        Traffic::FragmentsOf { protocol: port.protocol },
    ];
    let directions = vec![Direction::Egress, Direction::Ingress];
    let answers = vec![Answer::Silence, Answer::Refusal];
    (prop::sample::select(directions), addresses(), prop::sample::select(traffics), prop::sample::select(answers))
        .prop_map(|(direction, address, traffic, answer)| Cut { direction, address, traffic, answer })
}

pub(crate) fn shapings() -> impl Strategy<Value = Shaping> {
    let profiles = prop::collection::btree_map(addresses(), profiles(), 0..ADDRESSES.len());
    let cuts = prop::collection::btree_set(cuts(), 0..4);
    (profiles, cuts).prop_map(|(profiles, cuts)| Shaping { leaf_specs: leaf_specs(&profiles), cuts })
}

/// The leaf of each address. Addresses with one profile share a leaf, but not across families if it has memory.
fn leaf_specs(profiles: &BTreeMap<IpAddr, Profile>) -> BTreeMap<IpAddr, Arc<LeafSpec>> {
    let spec = |(address, profile): (&IpAddr, &Profile)| {
        let alike = profiles.iter().filter(|(_, other)| *other == profile).map(|(address, _)| address);
        (*address, LeafSpec::of(*profile, alike.filter(|other| other.is_ipv4() == address.is_ipv4())))
    };
    profiles.iter().map(spec).collect()
}

/// Random wanted shapings. `None` means: the interface is not shaped.
pub(crate) fn wanted_shapings() -> impl Strategy<Value = Option<Shaping>> {
    prop::option::weighted(0.9, shapings())
}

/// Kernels after up to three changes. After each change some leaves hold packets.
pub(crate) fn kernels() -> impl Strategy<Value = FakeKernel> {
    let queued = prop::collection::vec(prop_oneof![Just(0), 1..9_u32], 1..5);
    prop::collection::vec((wanted_shapings(), queued), 0..4).prop_map(|past| {
        let mut kernel = untouched();
        for (wanted, queued) in past {
            forget_queues(&mut kernel.tree);
            apply(&mut kernel, wanted.as_ref());
            let leaves = kernel.tree.classes.values_mut().filter(|leaf| leaf.profile.is_some());
            leaves.zip(queued.iter().cycle()).for_each(|(leaf, queued)| leaf.queued = *queued);
        }
        kernel
    })
}

/// Documents of six nodes: a topology of some nodes or no topology, up to three overlays and up to three partitions.
pub(crate) fn documents() -> impl Strategy<Value = Wanted> {
    let zones = prop::collection::vec(0..4_usize, 2..=6);
    let times = (0..3_u32, 0..3_u32, 0..3_u32);
    let partitions = prop::collection::vec(partitions(), 0..4);
    let overlays = prop::collection::vec(((ends(), ends()), any::<bool>(), 0..9_u32, any::<bool>()), 0..4);
    (prop::option::of((zones, times)), overlays, partitions).prop_map(|(topology, overlays, partitions)| {
        let mut wanted = Wanted { inventory: inventory(6).into(), ..Wanted::default() };
        if let Some((zones, times)) = topology {
            wanted = wanted.with_topology(topology_of(&zones, times), inventory(6)).unwrap();
        }
        for (number, (ends, both_ways, delay, is_timed)) in overlays.into_iter().enumerate() {
            let lasts = is_timed.then_some(Duration::from_secs(30));
            let request = overlay_request(Some(&format!("set:{number}")), ends, both_ways, delay, lasts);
            // An overlay between a node and itself is rejected.
            if let Ok(laid) = wanted.with_overlay(request, inventory(6)) {
                wanted = laid;
            }
        }
        for (number, request) in partitions.iter().enumerate() {
            // A partition that cuts nothing is rejected.
            if let Ok(cut) = wanted.with_partition(named(&format!("cut-{number}"), request), inventory(6)) {
                wanted = cut;
            }
        }
        wanted
    })
}

/// One end of an overlay, as on the command line.
pub(crate) fn ends() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["n1", "n2", "n[1-2]", "n[3-5],n1", "n6", "*"]).prop_map(str::to_owned)
}

pub(crate) fn overlay_request(
    name: Option<&str>,
    (from, to): (String, String),
    both_ways: bool,
    delay: u32,
    lasts: Option<Duration>,
) -> OverlayRequest {
    let source = Source::new("<set>", format!("delay = '{delay}ms'\nlimit = {}", 100 + delay));
    let change = LinkChange::parse(source, both_ways).unwrap();
    OverlayRequest { name: name.map(str::to_owned), from, to, both_ways, change, lasts }
}

/// Partitions of every form. A draw of zones is rejected if the topology has no zones.
pub(crate) fn partitions() -> impl Strategy<Value = PartitionRequest> {
    let sides = prop::collection::vec(0..3_usize, 6)
        .prop_map(|sides| members(&sides).into_values().map(|nodes| nodes.join(",")).collect::<Vec<_>>());
    let draws = prop::sample::select(vec![
        Draw::Halves,
        Draw::Minority(2),
        Draw::Isolate(None),
        Draw::Isolate(Some("n2".to_owned())),
        Draw::IsolateEach,
        Draw::Bridge(None),
        Draw::Bridge(Some("n3".to_owned())),
        Draw::Ring,
        Draw::Random,
    ]);
    let over = prop::sample::select(vec![Over::Nodes, Over::Nodes, Over::Zones]);
    let among = prop::sample::select(vec![vec![], vec!["n[1-5]".to_owned()]]);
    let division = prop_oneof![
        sides.clone().prop_map(Division::Sides),
        sides.prop_map(Division::OneWay),
        (draws, over, among, any::<u64>()).prop_map(|(draw, over, among, seed)| Division::Drawn {
            draw,
            over,
            among,
            seed
        }),
    ];
    let ports = vec!["tcp/26257".parse().unwrap(), "udp/4567".parse().unwrap(), "tcp/8080".parse().unwrap()];
    let ports = prop::sample::subsequence(ports, 0..=2);
    let modes = prop::sample::select(vec![Mode::Drop, Mode::Drop, Mode::Loss { loss: "30%".parse().unwrap() }]);
    (division, ports, modes).prop_map(|(division, ports, mode)| PartitionRequest {
        ports: ports.into_iter().collect(),
        mode,
        ..PartitionRequest::of(division)
    })
}

/// A topology: `zones[0]` is the number of n1's zone, and so on. 0 means no zone.
fn topology_of(zones: &[usize], (default, intra, inter): (u32, u32, u32)) -> Topology {
    let members = members(zones);
    let outside: Vec<String> =
        (1..).zip(zones).filter(|(_, zone)| **zone == 0).map(|(node, _)| format!("n{node}")).collect();
    let mut text = "name = \"random\"\n".to_owned();
    if !outside.is_empty() {
        text += &format!("nodes = {outside:?}\n");
    }
    if !members.is_empty() {
        text += "[zones]\n";
        text.extend(members.iter().map(|(zone, nodes)| format!("Z{zone} = {nodes:?}\n")));
    }
    text += &format!("[links]\ndefault = {{ rtt = \"{default}0ms\" }}\n");
    if !members.is_empty() {
        text += &format!("intra-zone = {{ delay = \"{intra}0ms\" }}\n");
    }
    if members.len() > 1 {
        text += &format!("inter-zone = {{ delay = \"{inter}5ms\" }}\n");
    }
    text += &format!("[[links.override]]\nfrom = \"n1\"\nto = \"n2\"\ndelay = \"{intra}s\"\n");
    let source = Source::new("random.toml", text);
    Topology::parse(source).unwrap_or_else(|rejected| panic!("{}", rejected.render(false, 100)))
}

/// The nodes of each group but group 0. `groups[0]` is the group of n1, and so on.
fn members(groups: &[usize]) -> BTreeMap<usize, Vec<String>> {
    let mut members: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (node, group) in (1..).zip(groups).filter(|(_, group)| **group != 0) {
        members.entry(*group).or_default().push(format!("n{node}"));
    }
    members
}

fn inventory(nodes: u8) -> Inventory {
    let location = |node: u8| NodeLocation {
        agent: AgentAddress::Unix(format!("/run/n{node}.sock").into()),
        interface: "db0".parse().unwrap(),
        addresses: vec![IpAddr::from([10, 0, 0, node]), format!("fd00::{node}").parse().unwrap()],
    };
    let node = |node: u8| (format!("n{node}").parse::<NodeName>().unwrap(), location(node));
    Inventory { nodes: (1..=nodes).map(node).collect(), ..Inventory::default() }
}

pub(crate) fn untouched() -> FakeKernel {
    FakeKernel::new("db0".parse().unwrap())
}

pub(crate) fn apply(kernel: &mut FakeKernel, wanted: Option<&Shaping>) -> Change {
    let change = diff(wanted, &kernel.tree).unwrap();
    let interface = kernel.interface.clone();
    execute(kernel, &interface, &change.steps).unwrap();
    change
}

pub(crate) fn forget_queues(tree: &mut Tree) {
    tree.classes.values_mut().for_each(|leaf| leaf.queued = 0);
}

pub(crate) fn named(name: &str, request: &PartitionRequest) -> PartitionRequest {
    PartitionRequest { name: Some(name.to_owned()), ..request.clone() }
}
