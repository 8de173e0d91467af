//! TCP goodput under jitter, which is why jitter keeps packets in order.

use std::{io::Write, time::Duration};

use super::{
    lab,
    measure::goodputs,
    shape,
    statistics::{median, quantile},
};
use crate::{lab::Lab, sockets::v4};

/// Slow start ends within this time. Jitter prolongs it: CUBIC (`HyStart`) takes a growing delay for a growing queue.
const WARM_UP: Duration = Duration::from_secs(4);
const LASTING: Duration = Duration::from_secs(3);

const STEADY: &str = "delay = '20ms'";
const IN_ORDER: &str = "delay = '20ms'\njitter = '5ms'\ndistribution = 'normal'";

/// The same jitter as in `IN_ORDER`, by plain `tc`: packets overtake one another.
const PLAIN_TC: &str = "netem delay 20ms 5ms distribution normal limit 100000";

fn goodput(lab: &Lab) -> f64 {
    goodputs(lab, &[(1, (2, v4(2)))], WARM_UP, LASTING)[0]
}

#[test]
fn tcp_goodput_under_jitter_is_at_least_half_of_the_goodput_without_jitter() {
    let lab = lab(2);
    let under = |link: &str| {
        shape(&lab, 2, &format!("[links.default]\n{link}"));
        goodput(&lab)
    };
    let (steady, in_order) = (under(STEADY), under(IN_ORDER));
    assert!(in_order >= 0.5 * steady, "{in_order} bit/s with jitter, {steady} bit/s without");
}

/// Prints the goodput figures of the README. `scripts/bench-links` runs this test only.
#[test]
#[ignore = "a benchmark, which scripts/bench-links runs"]
fn benchmark() {
    const ROUNDS: usize = 3;
    let lab = lab(2);
    let mut out = std::io::stdout().lock();
    let mut print = |text: String| writeln!(out, "{text}").unwrap();
    for (direction, senders) in [("there and back", &["n1", "n2"][..]), ("there only", &["n1"])] {
        let rule = |link: &str| {
            let rule = |from: &&str| format!("[[links.override]]\nfrom = '{from}'\nto = 'n[1-2]'\n{link}\n");
            format!("default = {{ rtt = '0ms' }}\n{}", senders.iter().map(rule).collect::<String>())
        };
        let (steady, in_order) = (rule(STEADY), rule(IN_ORDER));
        let mut measured = [const { Vec::new() }; 3];
        // A machine may be busy for some time. Each round therefore measures all three configurations.
        for _ in 0..ROUNDS {
            for (links, measured) in [&steady, &in_order].iter().zip(&mut measured) {
                shape(&lab, 2, links);
                measured.push(goodput(&lab));
            }
            drop(lab.netemctl("clear").expect(0));
            for node in senders {
                drop(lab.exec(node, &format!("tc qdisc add dev db0 root {PLAIN_TC}")));
            }
            measured[2].push(goodput(&lab));
            for node in senders {
                drop(lab.exec(node, "tc qdisc del dev db0 root"));
            }
        }
        let reference = median(&measured[0]);
        print(format!(
            "\n{:32} {:>8} {:>8} {:>8} {:>8}",
            format!("Mbit/s, delay {direction}"),
            "median",
            "least",
            "most",
            "ratio"
        ));
        let names = ["20 ms", "20 ms ± 5 ms by netemctl", "20 ms ± 5 ms by tc netem"];
        for (name, goodputs) in names.iter().zip(&measured) {
            let [middle, least, most] = [0.5, 0.0, 1.0].map(|share| quantile(goodputs, share));
            let [a, b, c] = [middle, least, most].map(|bits| bits / 1e6);
            print(format!("{name:32} {a:8.1} {b:8.1} {c:8.1} {:8.3}", middle / reference));
        }
        let ratio = median(&measured[1]) / median(&measured[2]);
        print(format!("netemctl carries {ratio:.1} times what plain tc netem carries under the same jitter"));
    }
}
