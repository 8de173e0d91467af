//! Golden folders: every folder of `tests/plan/` is a change, and its `plan.txt` are the steps of it with the `tc`
//! commands that do the same, then the classes that are left to drain.
//!
//! A folder's `case.toml` says who is there, what was in force before, and what is wanted; see [`Case`]. A new case is a
//! new folder. `NETEMCTL_BLESS=1 cargo test --test plan` writes what the program says now into the `plan.txt` files;
//! read the difference before you commit it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

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
    /// Everybody, as a hostlist; the first has the addresses 10.0.0.1 and `fd00::1`, and so on.
    nodes: String,
    /// The node whose plan this is.
    node: NodeName,
    /// What was in force, one after the other; nothing: the interface is untouched.
    #[serde(default)]
    before: Vec<State>,
    /// What is wanted.
    after: State,
}

/// What is in force at some time; nothing at all: every interface is as it was found.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// The topology's file, seen from the case's folder.
    topology: Option<PathBuf>,
    /// The partitions, each as on the command line.
    #[serde(default)]
    partitions: Vec<String>,
    /// The power fails after so many steps on the way here.
    crash_after: Option<usize>,
    /// Classes that hold packets from here on.
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
            differing.push(format!("{} should have been:\n{plan}", golden.display()));
        }
    }
    assert!(differing.is_empty(), "{}\nNETEMCTL_BLESS=1 accepts what is shown here", differing.join("\n"));
}

/// The plan of a case, after its steps were tried out.
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
    /// What the node has to do in that state.
    fn shaping(&self, state: &State, folder: &Path) -> Option<Shaping> {
        let inventory = self.inventory();
        let mut wanted = Wanted { inventory: inventory.clone(), ..Wanted::default() };
        if let Some(path) = &state.topology {
            wanted = wanted.with_topology(topology(&folder.join(path)), inventory.clone()).unwrap();
        }
        for partition in &state.partitions {
            wanted = wanted.with_partition(wish(partition), inventory.clone()).unwrap();
        }
        wanted.shaping(&self.node, LineRate::UNKNOWN)
    }

    fn inventory(&self) -> Inventory {
        let nodes = hostlist::expand(&self.nodes).unwrap();
        let place = |number: u8, node: &str| NodeLocation {
            agent: AgentAddress::Unix(format!("/run/{node}.sock").into()),
            interface: "db0".parse().unwrap(),
            addresses: vec![IpAddr::from([10, 0, 0, number]), format!("fd00::{number:x}").parse().unwrap()],
        };
        let nodes = (1..).zip(&nodes).map(|(number, node)| (node.parse().unwrap(), place(number, node)));
        Inventory { nodes: nodes.collect(), ..Inventory::default() }
    }
}

/// A partition's command line, read.
fn wish(line: &str) -> PartitionRequest {
    let mut words = line.split(' ').peekable();
    let (mut sides, mut draw, mut over, mut seed, mut one_way) = (Vec::new(), None, Over::Nodes, 0, false);
    let mut wish = PartitionRequest::of(Division::Sides(Vec::new()));
    while let Some(word) = words.next() {
        let mut value = || words.next_if(|value| !value.starts_with("--")).map(str::to_owned);
        match word {
            "--one-way" => one_way = true,
            "--port" => drop(wish.ports.insert(value().unwrap().parse().unwrap())),
            "--mode" => wish.mode = if value().unwrap() == "reject" { Mode::Reject } else { Mode::Drop },
            "--loss" => wish.mode = Mode::Loss { loss: value().unwrap().parse().unwrap() },
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
    wish.division = match draw {
        Some(draw) => Division::Drawn { draw, over, among: sides, seed },
        None if one_way => Division::OneWay(sides),
        None => Division::Sides(sides),
    };
    wish
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
