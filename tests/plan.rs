//! Golden plans. Each folder of `tests/plan/` describes one change. Its `plan.txt` lists the steps with the equivalent
//! `tc` commands, then the draining classes.
//!
//! A folder's `case.toml` has the nodes, the states before the change, and the wanted state ([`Case`]). A new folder is
//! a new case. `NETEMCTL_BLESS=1 cargo test --test plan` writes the current plans into the `plan.txt` files. Read the
//! difference before you commit it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    env, fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use netemctl::{
    kernel::execute,
    plan::{
        AgentAddress, ClassMinor, Division, Draw, Inventory, LineRate, Mode, NodeLocation, Over, PartitionRequest,
        Shaping, Wanted, diff, tc_commands,
    },
    topology::{NodeName, Source, Topology, hostlist},
};
use serde::Deserialize;

#[path = "fake_kernel/mod.rs"]
mod fake_kernel;

use fake_kernel::FakeKernel;

/// One change of one node's interface.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// All nodes, as a hostlist. The first has the addresses 10.0.0.1 and `fd00::1`, the second 10.0.0.2 and `fd00::2`.
    nodes: String,
    /// The node whose plan is tested.
    node: NodeName,
    /// The states before the change, in this order. Empty: the interface is untouched.
    #[serde(default)]
    before: Vec<State>,
    /// The wanted state.
    after: State,
}

/// A state of the fleet. An empty one leaves every interface untouched.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// The topology's file, relative to the case's folder.
    topology: Option<PathBuf>,
    /// The partitions, each with the arguments of `netemctl partition`.
    #[serde(default)]
    partitions: Vec<String>,
    /// The number of steps before a power failure. None: the change completes.
    crash_after: Option<usize>,
    /// Classes that hold packets once this state is in force.
    #[serde(default)]
    queued: Vec<ClassMinor>,
}

#[test]
fn plans_are_the_texts_next_to_their_cases() {
    let bless = env::var_os("NETEMCTL_BLESS").is_some();
    let mut differing = Vec::new();
    for folder in folders() {
        let plan = plan(&folder);
        let golden = folder.join("plan.txt");
        if bless {
            fs::write(&golden, &plan).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != plan {
            differing.push(format!("{} differs from the plan:\n{plan}", golden.display()));
        }
    }
    assert!(differing.is_empty(), "{}\nNETEMCTL_BLESS=1 accepts these plans", differing.join("\n"));
}

/// Returns the text of a case's plan. The fake kernel executes the steps, to check that they lead to the wanted state.
fn plan(folder: &Path) -> String {
    let text = fs::read_to_string(folder.join("case.toml")).unwrap();
    let case: Case = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut kernel = FakeKernel::new("db0".parse().unwrap());
    let interface = kernel.interface.clone();
    for state in &case.before {
        let mut steps = diff(case.shaping(state, folder).as_ref(), &kernel.tree).unwrap().steps;
        steps.truncate(state.crash_after.unwrap_or(steps.len()));
        execute(&mut kernel, &interface, &steps).unwrap();
        for (class, leaf) in &mut kernel.tree.classes {
            leaf.queued = u32::from(state.queued.contains(class));
        }
    }

    let wanted = case.shaping(&case.after, folder);
    let change = diff(wanted.as_ref(), &kernel.tree).unwrap();
    execute(&mut kernel, &interface, &change.steps).unwrap();
    assert_eq!(kernel.tree.shaping(), wanted, "{}", folder.display());

    let mut plan = String::new();
    for step in &change.steps {
        plan += &format!("{step}\n");
        plan.extend(tc_commands(step, &interface.name).iter().map(|command| format!("    {command}\n")));
    }
    plan.extend(change.draining.iter().map(|class| format!("class {class:x} is left to drain\n")));
    if plan.is_empty() { "nothing to do\n".to_owned() } else { plan }
}

impl Case {
    /// The node's shaping in that state.
    fn shaping(&self, state: &State, folder: &Path) -> Option<Shaping> {
        let inventory = self.inventory();
        let mut wanted = Wanted { inventory: inventory.clone().into(), ..Wanted::default() };
        if let Some(path) = &state.topology {
            wanted = wanted.with_topology(topology(&folder.join(path)), inventory.clone()).unwrap();
        }
        for partition in &state.partitions {
            wanted = wanted.with_partition(partition_request(partition), inventory.clone()).unwrap();
        }
        wanted.shaping(&self.node, LineRate::UNKNOWN)
    }

    fn inventory(&self) -> Inventory {
        let nodes = hostlist::expand(&self.nodes).unwrap();
        let location = |number: u8, node: &str| NodeLocation {
            agent: AgentAddress::Unix(format!("/run/{node}.sock").into()),
            interface: "db0".parse().unwrap(),
            addresses: vec![IpAddr::from([10, 0, 0, number]), format!("fd00::{number:x}").parse().unwrap()],
        };
        let nodes = (1..).zip(&nodes).map(|(number, node)| (node.parse().unwrap(), location(number, node)));
        Inventory { nodes: nodes.collect(), ..Inventory::default() }
    }
}

/// Parses the arguments of `netemctl partition`.
fn partition_request(line: &str) -> PartitionRequest {
    let mut words = line.split(' ').peekable();
    let (mut sides, mut draw, mut over, mut seed, mut one_way) = (Vec::new(), None, Over::Nodes, 0, false);
    let mut request = PartitionRequest::of(Division::Sides(Vec::new()));
    while let Some(word) = words.next() {
        let mut value = || words.next_if(|value| !value.starts_with("--")).map(str::to_owned);
        match word {
            "--one-way" => one_way = true,
            "--port" => drop(request.ports.insert(value().unwrap().parse().unwrap())),
            "--mode" => request.mode = if value().unwrap() == "reject" { Mode::Reject } else { Mode::Drop },
            "--loss" => request.mode = Mode::Loss { loss: value().unwrap().parse().unwrap() },
            "--over" => over = if value().unwrap() == "zones" { Over::Zones } else { Over::Nodes },
            "--seed" => seed = value().unwrap().parse().unwrap(),
            "--halves" => draw = Some(Draw::Halves),
            "--minority" => draw = Some(Draw::Minority(value().unwrap().parse().unwrap())),
            "--isolate" => draw = Some(Draw::Isolate(value())),
            "--isolate-each" => draw = Some(Draw::IsolateEach),
            "--bridge" => draw = Some(Draw::Bridge(value())),
            "--ring" => draw = Some(Draw::Ring),
            "--random" => draw = Some(Draw::Random),
            side => sides.push(side.to_owned()),
        }
    }
    let sides = netemctl::plan::sides(&sides);
    request.division = match draw {
        Some(draw) => Division::Drawn { draw, over, among: sides, seed },
        None if one_way => Division::OneWay(sides),
        None => Division::Sides(sides),
    };
    request
}

fn topology(path: &Path) -> Topology {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let source = Source::new(path.display().to_string(), text);
    Topology::parse(source).unwrap_or_else(|rejected| panic!("{}", rejected.render(false, 100)))
}

fn folders() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    assert!(!folders.is_empty(), "tests/plan has no case");
    folders
}
