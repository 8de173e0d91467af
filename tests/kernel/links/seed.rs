//! Seeds: the same losses in each run, or a refusal by a kernel without seeds.

use std::time::Duration;

use super::{
    lab,
    measure::{Flow, Pace, stream},
    topology,
};

/// Kernels before 6.6 have no seeds. The test does not read the version: it accepts either a refusal or repeated
/// losses.
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
            let refusal = &applied.stderr;
            assert!(refusal.contains("seed") && refusal.contains("kernel") && refusal.contains("n[1-3]"), "{refusal}");
            assert!(
                refusal.contains(&format!("{}:4", seeded.display())),
                "the refusal does not name the line: {refusal}"
            );
            assert_eq!(lab.tc(), before, "a refused apply changed something");
            return;
        }
        drop(applied.expect(APPLIED));
        patterns.push(flows.each_ref().map(|flow| stream(flow, Pace::of(500, Duration::from_millis(1))).lost()));
        drop(lab.netemctl("clear").expect(0));
    }
    assert_eq!(patterns[0], patterns[1], "the second run lost other packets");
    assert_ne!(patterns[0][0], patterns[0][1], "both links lost the same packets");
}
