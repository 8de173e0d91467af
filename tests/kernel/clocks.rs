//! A node whose wall clock is off. The kernel has one clock for all, so libfaketime shows the node's agent another one.

use std::{thread, time::Duration};

use crate::{
    lab::{Lab, shipped},
    timing::{Restarted, Ticks, change, kill_agent},
};

/// By how many seconds the clock is off.
const OFF: f64 = 4.8;

/// How late something may be: the CPU is shared, and the correction is as good as the round trip is short.
const SOON: f64 = 2.4;

#[test]
fn a_node_whose_clock_is_off_begins_and_ends_what_it_is_told_when_all_others_do() {
    let lab = Lab::up(&shipped("uniform-3-rtt0.toml"));
    kill_agent(&lab, "n2");
    for off in [-OFF, OFF] {
        let _agent = Restarted::start_with(&lab, "n2", &clock(off));
        let ticks = Ticks::start(&lab, 2, 1);
        thread::sleep(Duration::from_millis(500));
        // Only n2 does anything for this, and ends it by itself.
        let (agreed, changed) = change(&lab, "set n2 n1 loss=100% --one-way --for 6s");
        thread::sleep(Duration::from_secs_f64(6.0 + OFF + SOON));
        let silences = ticks.silences(agreed);
        let (begins, ends) = silences.iter().copied().max_by(|a, b| (a.1 - a.0).total_cmp(&(b.1 - b.0))).unwrap();
        assert!(begins.abs() < SOON && (ends - 6.0).abs() < SOON, "{off}: {silences:?}");

        let ahead = changed["onset"]["clocks_ahead_s"].as_object().unwrap();
        assert!((ahead["n2"].as_f64().unwrap() - off).abs() < SOON, "{changed}");
        let said = lab.netemctl("set n1 n2 delay=1ms").expect(0).stdout;
        let way = if off < 0.0 { "behind" } else { "ahead of" };
        let says_it = said.contains("the clock of n2 is ") && said.contains(&format!(" s {way} this machine's"));
        assert!(says_it && !said.contains("the clock of n1"), "{said}");
        drop(lab.netemctl("clear").expect(0));
    }
}

/// What a program has in its environment for its wall clock to be off, and no other one.
fn clock(off: f64) -> [String; 3] {
    let library = "LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1".to_owned();
    [library, format!("FAKETIME={off:+}"), "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned()]
}
