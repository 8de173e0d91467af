//! What this kernel does not do is found at prepare, named, and nothing is written; what it does is done.
//!
//! Kernels differ, so each test asks this one first.

use crate::lab::Lab;

const PLAIN: &str = "name = 'plain'\nnodes = 'n[1-9]'\n[links]\ndefault = { rtt = '20ms' }\n";

/// Packets to n3 come twice now and then; the kernel has other leaves for the other nodes.
const MIXED: &str = "name = 'mixed'\nnodes = 'n[1-9]'\n[links]\ndefault = { rtt = '20ms' }\n\
                     [[links.override]]\nfrom = '*'\nto = 'n3'\ndelay = '15ms'\nduplicate = '1%'\n";

/// All packets do, by one leaf.
const ALIKE: &str = "name = 'alike'\nnodes = 'n[1-9]'\n[links]\ndefault = { rtt = '20ms', duplicate = '1%' }\n";

const SEEDED: &str = "name = 'seeded'\nnodes = 'n[1-9]'\n[links]\ndefault = { rtt = '20ms', loss = '1%', seed = 42 }\n";

#[test]
fn duplicates_beside_other_delays_are_done_or_refused_by_name() {
    let lab = Lab::hierarchical();
    let takes_them = takes(&lab, "duplicate 1%");
    let mixed = lab.topology(MIXED);
    if takes_them {
        lab.apply(&mixed);
        drop(lab.netemctl("status").expect(0));
        return;
    }
    let refused = lab.run(["apply".as_ref(), mixed.as_path()]).expect(7);
    let message = format!(
        "the kernel ({}) refuses `duplicate` next to other delays on one interface ({}:9): netem: cannot mix \
         duplicating netems with other netems in tree; give all links of the node the same parameters",
        release(),
        mixed.display()
    );
    assert!(refused.stderr.contains(&message), "{}", refused.stderr);
    assert!(!lab.exec("n1", "tc qdisc show dev db0").contains("netem"), "nothing was written");

    // One leaf for all of them is taken, from nothing but not from other leaves.
    lab.apply(&lab.topology(ALIKE));
    assert!(lab.exec("n1", "tc qdisc show dev db0").contains("duplicate 1%"));
    drop(lab.netemctl("clear").expect(0));
    lab.apply(&lab.topology(&MIXED.replace("duplicate = '1%'\n", "")));
    let refused = lab.run(["apply".as_ref(), lab.topology(ALIKE).as_path()]).expect(7);
    assert!(refused.stderr.contains("run `netemctl clear` first"), "{}", refused.stderr);
    drop(lab.netemctl("clear").expect(0));
    lab.apply(&lab.topology(ALIKE));
}

#[test]
fn a_seed_is_kept_or_its_loss_is_named() {
    let lab = Lab::hierarchical();
    lab.apply(&lab.topology(PLAIN));
    let seeded = lab.topology(SEEDED);
    // tc 6.1 knows no seeds, so the kernel is asked by its version, as nothing else in the project is.
    let [major, minor] = version();
    if (major, minor) >= (6, 6) {
        lab.apply(&seeded);
        drop(lab.netemctl("status").expect(0));
        return;
    }
    let refused = lab.run(["apply".as_ref(), seeded.as_path()]).expect(7);
    let message = format!("the kernel ({}) ignores `seed` ({}:4); leave it out", release(), seeded.display());
    assert!(refused.stderr.contains(&message), "{}", refused.stderr);
    drop(lab.netemctl("status").expect(0));
}

/// Whether a netem of these parameters is taken beside a plain one.
fn takes(lab: &Lab, netem: &str) -> bool {
    let script = format!(
        "tc qdisc add dev lo root handle 1: prio && tc qdisc add dev lo parent 1:1 netem delay 1ms && \
         tc qdisc add dev lo parent 1:2 netem {netem} && echo taken; tc qdisc del dev lo root"
    );
    lab.run(["lab", "exec", "n1", "--", "sh", "-c", &script]).expect(0).stdout.contains("taken")
}

fn release() -> String {
    netemctl::kernel::release()
}

fn version() -> [u32; 2] {
    let release = release();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap());
    [numbers.next().unwrap(), numbers.next().unwrap()]
}
