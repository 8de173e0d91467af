//! A seed: the same losses from run to run, or a refusal that names what cannot.

use std::time::Duration;

use super::{
    lab,
    measure::{Flow, Pace, stream},
    topology,
};

/// Kernels before 6.6 cannot. Which this one is, it has to say itself: whichever it says is held against it.
#[test]
fn a_seed_repeats_the_losses_or_is_refused_by_name() {
    const APPLIED: i32 = 0;
    const UNSUPPORTED: i32 = 7;
    let lab = lab(3);
    let flows = [Flow::v4(&lab, 1, 2), Flow::v4(&lab, 1, 3)];
    let before = lab.tc();
    let seeded = lab.topology(&topology(3, "default = { loss = '20%', seed = 42 }"));
    let mut patterns = Vec::new();
    for _ in 0..2 {
        let applied = lab.run([std::path::Path::new("apply"), &seeded]);
        if applied.code == Some(UNSUPPORTED) {
            let said = &applied.stderr;
            assert!(said.contains("seed") && said.contains("kernel") && said.contains("n[1-3]"), "{said}");
            assert!(said.contains(&format!("{}:4", seeded.display())), "the place is named: {said}");
            assert_eq!(lab.tc(), before, "nothing was changed");
            return;
        }
        drop(applied.expect(APPLIED));
        patterns.push(flows.each_ref().map(|flow| stream(flow, Pace::of(500, Duration::from_millis(1))).lost()));
        drop(lab.netemctl("clear").expect(0));
    }
    assert_eq!(patterns[0], patterns[1], "the same packets are lost in each run");
    assert_ne!(patterns[0][0], patterns[0][1], "each link loses others");
}
