//! A node with a wrong wall clock. All nodes share the kernel's clock, so libfaketime changes the time that the agent
//! reads.

use std::{thread, time::Duration};

use crate::{
    lab::{Lab, shipped},
    timing::{Restarted, Ticks, change, kill_agent},
};

/// The error of the clock, in seconds.
const CLOCK_ERROR: f64 = 4.8;

/// The tolerance of times, in seconds. The CPU is shared, and the correction may be wrong by half of the round trip.
const TOLERANCE: f64 = 2.4;

#[test]
fn a_node_with_a_wrong_clock_begins_and_ends_changes_on_time() {
    let lab = Lab::up(&shipped("uniform-3-rtt0.toml"));
    kill_agent(&lab, "n2");
    for error in [-CLOCK_ERROR, CLOCK_ERROR] {
        let _agent = Restarted::start_with(&lab, "n2", &fake_clock(error));
        let ticks = Ticks::start(&lab, 2, 1);
        thread::sleep(Duration::from_millis(500));
        // Only the agent of n2 writes this change, and ends it by itself.
        let (agreed, changed) = change(&lab, "set n2 n1 loss=100% --one-way --for 6s");
        thread::sleep(Duration::from_secs_f64(6.0 + CLOCK_ERROR + TOLERANCE));
        let silences = ticks.silences(agreed);
        let (begins, ends) = silences.iter().copied().max_by(|a, b| (a.1 - a.0).total_cmp(&(b.1 - b.0))).unwrap();
        assert!(begins.abs() < TOLERANCE && (ends - 6.0).abs() < TOLERANCE, "{error}: {silences:?}");

        let ahead = changed["onset"]["clocks_ahead_s"].as_object().unwrap();
        assert!((ahead["n2"].as_f64().unwrap() - error).abs() < TOLERANCE, "{changed}");
        let output = lab.netemctl("set n1 n2 delay=1ms").expect(0).stdout;
        let direction = if error < 0.0 { "behind" } else { "ahead of" };
        let is_named =
            output.contains("the clock of n2 is ") && output.contains(&format!(" s {direction} this machine's"));
        assert!(is_named && !output.contains("the clock of n1"), "{output}");
        drop(lab.netemctl("clear").expect(0));
    }
}

/// The environment variables that make a program's wall clock wrong, but not its monotonic clock.
fn fake_clock(error: f64) -> [String; 3] {
    let library = "LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1".to_owned();
    [library, format!("FAKETIME={error:+}"), "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned()]
}
