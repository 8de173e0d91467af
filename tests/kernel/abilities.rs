//! Features that some kernels lack. On such a kernel, *prepare* refuses them by name, and no node writes anything.
//!
//! Each test first finds out if the running kernel has the feature.

use crate::lab::Lab;

const PLAIN: &str = "name = 'plain'\nnodes = 'n[1-9]'\n[links]\ndefault = { rtt = '20ms' }\n";

/// One link duplicates packets, and the other links have leaves without duplication.
const ONE_DUPLICATES: &str = "name = 'mixed'\nnodes = 'n[1-9]'\n[links]\ndefault = { rtt = '20ms' }\n\
                     [[links.override]]\nfrom = '*'\nto = 'n3'\ndelay = '15ms'\nduplicate = '1%'\n";

/// All links duplicate packets, so a node needs one leaf only.
const ALL_DUPLICATE: &str = "name = 'alike'\nnodes = 'n[1-9]'\n[links]\ndefault = { rtt = '20ms', duplicate = '1%' }\n";

const SEEDED: &str = "name = 'seeded'\nnodes = 'n[1-9]'\n[links]\ndefault = { rtt = '20ms', loss = '1%', seed = 42 }\n";

#[test]
fn duplicates_beside_other_delays_are_applied_or_refused_by_name() {
    let lab = Lab::hierarchical();
    let is_supported = accepts(&lab, "duplicate 1%");
    let one_duplicates = lab.topology(ONE_DUPLICATES);
    if is_supported {
        lab.apply(&one_duplicates);
        drop(lab.netemctl("status").expect(0));
        return;
    }
    let refused = lab.run(["apply".as_ref(), one_duplicates.as_path()]).expect(7);
    let message = format!(
        "kernel {} refuses `duplicate` together with other netems ({}:9); give all links of the node the same parameters",
        release(),
        one_duplicates.display()
    );
    assert!(refused.stderr.contains(&message), "{}", refused.stderr);
    assert!(!lab.exec("n1", "tc qdisc show dev db0").contains("netem"), "a refused apply wrote a qdisc");

    // A single duplicating leaf is applied to a node without leaves. It is refused beside the leaves of another
    // topology.
    lab.apply(&lab.topology(ALL_DUPLICATE));
    assert!(lab.exec("n1", "tc qdisc show dev db0").contains("duplicate 1%"));
    drop(lab.netemctl("clear").expect(0));
    lab.apply(&lab.topology(&ONE_DUPLICATES.replace("duplicate = '1%'\n", "")));
    let refused = lab.run(["apply".as_ref(), lab.topology(ALL_DUPLICATE).as_path()]).expect(7);
    assert!(refused.stderr.contains("run `netemctl clear` first"), "{}", refused.stderr);
    drop(lab.netemctl("clear").expect(0));
    lab.apply(&lab.topology(ALL_DUPLICATE));
}

#[test]
fn a_seed_is_applied_or_refused_by_name() {
    let lab = Lab::hierarchical();
    lab.apply(&lab.topology(PLAIN));
    let seeded = lab.topology(SEEDED);
    // tc 6.1 cannot set a seed, so the test reads the kernel's version. Nothing else in the project does.
    let [major, minor] = version();
    if (major, minor) >= (6, 6) {
        lab.apply(&seeded);
        drop(lab.netemctl("status").expect(0));
        return;
    }
    let refused = lab.run(["apply".as_ref(), seeded.as_path()]).expect(7);
    let message = format!("kernel {} ignores `seed` ({}:4); leave it out", release(), seeded.display());
    assert!(refused.stderr.contains(&message), "{}", refused.stderr);
    drop(lab.netemctl("status").expect(0));
}

/// True if the kernel accepts a netem with these parameters beside a plain netem.
fn accepts(lab: &Lab, netem: &str) -> bool {
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
