//! Every parameter of a link, measured: what the language says is what packets meet.
//!
//! Each test sends as many packets as the band that it names needs, and says why that many. Figures of docs/links.md
//! that a machine could break are asserted here as well.

mod chances;
mod delay;
mod goodput;
mod loss;
mod measure;
mod pairs;
mod queue;
mod rate;
mod seed;
mod statistics;

use std::io::Write;

use crate::lab::Lab;

/// A lab of nodes n1, n2 and so on, with nothing shaped.
fn lab(nodes: u16) -> Lab {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(topology(nodes, "default = { rtt = '0ms' }").as_bytes()).unwrap();
    Lab::up(file.path())
}

fn topology(nodes: u16, links: &str) -> String {
    format!("name = 'measured'\nnodes = 'n[1-{nodes}]'\n[links]\n{links}\n")
}

/// Puts in force what the `[links]` of these nodes say.
#[track_caller]
fn shape(lab: &Lab, nodes: u16, links: &str) {
    lab.apply(&lab.topology(&topology(nodes, links)));
}

/// Puts a link of its own in force from n1 to each other node, n2 first; the way back is the LAN.
#[track_caller]
fn shape_star(lab: &Lab, links: &[&str]) {
    let rule = |(to, link): (u16, &&str)| format!("[[links.override]]\nfrom = 'n1'\nto = 'n{to}'\n{link}\n");
    let rules: String = (2..).zip(links).map(rule).collect();
    let nodes = u16::try_from(links.len()).unwrap() + 1;
    shape(lab, nodes, &format!("default = {{ rtt = '0ms' }}\n{rules}"));
}
