//! Measures the time from a topology file to one node's kernel steps, for 10 to 10,000 nodes, and of `check` and `show`
//! for up to 100,000 nodes. No kernel is used.
//!
//! All steps should be linear in the number of nodes, so the throughput in nodes per second should be constant. Before
//! the measurements, a table shows the sizes and the time for the steps of all nodes.

#![expect(clippy::print_stdout, reason = "a benchmark prints to the terminal")]

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Instant,
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use netemctl::{
    plan::{
        AgentAddress, Division, Draw, Inventory, LineRate, NodeLocation, Over, PartitionRequest, Shaping, Tree, Wanted,
        diff,
    },
    topology::{Delay, NodeName, Source, Topology, hostlist},
};

const SIZES: [u32; 4] = [10, 100, 1_000, 10_000];

/// The sizes of topologies that only `check` and `show` read.
const READ_SIZES: [u32; 5] = [10, 100, 1_000, 10_000, 100_000];

/// The number of nodes in a zone of a topology with up to 10,000 nodes. Larger topologies have 300 zones.
const ZONE: u32 = 33;

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    for nodes in READ_SIZES {
        let source = source(nodes);
        group.throughput(Throughput::Elements(nodes.into()));
        group.bench_function(BenchmarkId::new("check", nodes), |bencher| {
            bencher.iter(|| Topology::parse(black_box(source.clone())).map(|topology| topology.warnings()));
        });
        let topology = Topology::parse(source.clone()).expect("a valid file");
        group.bench_function(BenchmarkId::new("show", nodes), |bencher| {
            bencher.iter(|| {
                let groups = black_box(&topology).groups();
                let links: Vec<_> = (0..groups.count()).map(|group| groups.links_from(group)).collect();
                (links, topology.distinct_links())
            });
        });
    }
    group.finish();
}

fn scale(criterion: &mut Criterion) {
    print_sizes();
    let mut group = criterion.benchmark_group("scale");
    for nodes in SIZES {
        let source = source(nodes);
        let wanted = wanted(nodes);
        let node = first_node();
        let shaping = shaping(&wanted, &node);
        group.throughput(Throughput::Elements(nodes.into()));
        group.bench_function(BenchmarkId::new("parse and resolve", nodes), |bencher| {
            bencher.iter(|| Topology::parse(black_box(source.clone())));
        });
        group.bench_function(BenchmarkId::new("compile one node", nodes), |bencher| {
            bencher.iter(|| black_box(&wanted).shaping(&node, LineRate::UNKNOWN));
        });
        group.bench_function(BenchmarkId::new("diff with nothing", nodes), |bencher| {
            bencher.iter(|| diff(Some(black_box(&shaping)), &Tree::default()));
        });
        let alone = PartitionRequest::of(Division::Drawn {
            draw: Draw::IsolateEach,
            over: Over::Nodes,
            among: Vec::new(),
            seed: 0,
        });
        let alone = wanted.with_partition(alone, inventory(nodes)).expect("nodes to part");
        group.bench_function(BenchmarkId::new("compile one node, each alone", nodes), |bencher| {
            bencher.iter(|| black_box(&alone).shaping(&node, LineRate::UNKNOWN));
        });
        let mapped_source = matrix_source(nodes);
        let mapped = wanted_as(mapped_source.clone(), nodes);
        group.bench_function(BenchmarkId::new("parse and resolve, a matrix of zones", nodes), |bencher| {
            bencher.iter(|| Topology::parse(black_box(mapped_source.clone())));
        });
        group.bench_function(BenchmarkId::new("compile one node, a matrix of zones", nodes), |bencher| {
            bencher.iter(|| black_box(&mapped).shaping(&node, LineRate::UNKNOWN));
        });
        let scattered = scattered(&shaping, nodes);
        group.bench_function(BenchmarkId::new("diff with nothing, no two links alike", nodes), |bencher| {
            bencher.iter(|| diff(Some(black_box(&scattered)), &Tree::default()));
        });
        group.bench_function(BenchmarkId::new("stamp the document", nodes), |bencher| {
            bencher.iter(|| black_box(&wanted).stamp());
        });
    }
    group.finish();
}

/// Prints the sizes of the topology, the document and the kernel's filters, and the times of one complete run for one
/// node and of the shaping of all nodes.
fn print_sizes() {
    let [node, all] = ["one node", "all nodes"];
    println!(
        "{:>6}  {:>14}  {:>14}  {:>7}  {node:>9}  {all:>9}",
        "nodes", "topology bytes", "document bytes", "routes"
    );
    for nodes in SIZES {
        let source = source(nodes);
        let length = source.text.len();
        let inventory = inventory(nodes);
        let start = Instant::now();
        let topology = Topology::parse(source).expect("a valid file");
        let wanted = Wanted::default().with_topology(topology, inventory).expect("a node for each name");
        let document = serde_json::to_vec(&wanted).expect("a document is JSON");
        let shaping = shaping(&wanted, &first_node());
        let change = diff(Some(&shaping), &Tree::default()).expect("nothing foreign");
        let millis = start.elapsed().as_secs_f64() * 1e3;
        assert!(!change.steps.is_empty());
        let (document, routes) = (document.len(), shaping.leaf_specs.len());
        let start = Instant::now();
        for node in wanted.inventory.nodes.keys() {
            black_box(wanted.shaping(node, LineRate::UNKNOWN));
        }
        let all = start.elapsed().as_secs_f64();
        println!("{nodes:>6}  {length:>14}  {document:>14}  {routes:>7}  {millis:>6.1} ms  {all:>7.3} s");
    }
}

fn source(nodes: u32) -> Source {
    let mut text = "name = \"scale\"\n[zones]\n".to_owned();
    let size = ZONE.max(nodes.div_ceil(300));
    for (zone, first) in (1..=nodes).step_by(size as usize).enumerate() {
        let last = nodes.min(first + size - 1);
        text += &format!("Z{zone} = \"n[{first}-{last}]\"\n");
    }
    text += "[links]\nintra-zone = { rtt = \"20ms\" }\ninter-zone = { rtt = \"150ms\" }\n";
    Source::new("scale.toml", text)
}

/// The same nodes, with a matrix that gives each pair of zones an RTT.
fn matrix_source(nodes: u32) -> Source {
    let mut source = source(nodes);
    source.text += "matrix = \"zones.csv\"\n";
    let zones = nodes.div_ceil(ZONE.max(nodes.div_ceil(300)));
    let names = (0..zones).map(|zone| format!("Z{zone}")).collect::<Vec<_>>();
    let mut csv = format!("ms,{}\n", names.join(","));
    for (row, name) in names.iter().enumerate() {
        let cell = |column: usize| if column > row { format!("{}.{row}", 10 + column % 300) } else { String::new() };
        csv += &format!("{name},{}\n", (0..names.len()).map(cell).collect::<Vec<_>>().join(","));
    }
    source.files.insert("zones.csv".to_owned(), csv);
    source
}

fn wanted(nodes: u32) -> Wanted {
    wanted_as(source(nodes), nodes)
}

fn wanted_as(source: Source, nodes: u32) -> Wanted {
    let topology = Topology::parse(source).expect("a valid file");
    Wanted::default().with_topology(topology, inventory(nodes)).expect("a node for each name")
}

fn shaping(wanted: &Wanted, node: &NodeName) -> Shaping {
    wanted.shaping(node, LineRate::UNKNOWN).expect("the topology has the node")
}

/// The same addresses, each with another delay, as from a matrix of measured RTTs between nodes.
fn scattered(shaping: &Shaping, nodes: u32) -> Shaping {
    let mut scattered = shaping.clone();
    for (number, spec) in (0..).zip(scattered.leaf_specs.values_mut()) {
        Arc::make_mut(spec).profile.delay = Delay::from_nanos(1 + number % u64::from(nodes - 1));
    }
    scattered
}

fn first_node() -> NodeName {
    "n1".parse().expect("a name")
}

/// An inventory that gives each node an IPv4 and an IPv6 address.
fn inventory(nodes: u32) -> Inventory {
    let v4 = |number: u32| Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number);
    let v6 = |number: u32| Ipv6Addr::from_bits((0xfd00 << 112) | u128::from(number));
    let place = |number| NodeLocation {
        agent: AgentAddress::Unix(format!("/run/netemctl/n{number}.sock").into()),
        interface: "db0".parse().expect("a name"),
        addresses: vec![IpAddr::V4(v4(number)), IpAddr::V6(v6(number))],
    };
    let names = hostlist::expand(&format!("n[1-{nodes}]")).expect("a hostlist");
    let names = names.into_iter().map(|name| NodeName::try_from(name).expect("a name"));
    Inventory { nodes: names.zip((1..).map(place)).collect(), ..Inventory::default() }
}

criterion_group!(benches, read, scale);
criterion_main!(benches);
