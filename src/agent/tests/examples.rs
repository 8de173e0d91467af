//! One request and its reply for each call, for the documentation of the API.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;

use super::{address, confirm, get_ready, n1, now, parted, prepare, rollback, uniform};
use crate::{
    agent::Via,
    doctor::tests::healthy,
    plan::Wanted,
    wire::{
        Call, ClockReading, Commit, Discards, Echoes, GetCounters, GetFacts, GetHost, GetStamp, GetStatus, GetWanted,
        Heard, Host, HostFacts, Plan, Probe, Probed, Ticket,
    },
};

/// The path of each call → a request and its reply.
pub(crate) fn exchanges() -> BTreeMap<&'static str, (Value, Value)> {
    let mut exchanges = Exchanges::default();
    let mut node = n1();
    let lan = Wanted::default();
    let wan = parted(&uniform(&lan, "100ms"), "n3", None);
    let ticket = "4d2-185f8e1c";
    let plan = || Plan { base: lan.stamp(), wanted: Some(wan.clone()), edit: None };
    exchanges.add(&plan(), &node.plan(plan(), Via::default(), now()).unwrap());
    let prepared = node.prepare(prepare(ticket, &lan, &wan), now()).unwrap();
    exchanges.add(&prepare(ticket, &lan, &wan), &prepared);
    exchanges.add(&get_ready(ticket), &node.get_ready(&get_ready(ticket), now()).unwrap());
    let commit = Commit {
        ticket: Ticket(ticket.into()),
        at: Some(now().wall),
        clock_ahead_ns: 0,
        confirm_within: Duration::from_secs(10),
    };
    exchanges.add(&commit, &node.commit(&commit, &now).unwrap());
    exchanges.add(&confirm(ticket), &node.confirm(&confirm(ticket), now()).unwrap());
    // A fixed kernel release, because the real release depends on the machine that runs the test.
    exchanges.add(&GetHost {}, &Host { kernel: "6.1.0-28-amd64".to_owned(), ..node.host().unwrap() });
    // Fixed facts, because those of the machine that runs the test differ.
    let clock = ClockReading { asked: now().wall, answered: now().wall };
    exchanges.add(&GetFacts {}, &HostFacts { clock, facts: healthy() });
    exchanges.add(&GetStamp {}, &node.stamp());
    exchanges.add(&GetStatus {}, &node.status(now()).unwrap());
    exchanges.add(&GetCounters {}, &node.counted(now()).unwrap());
    exchanges.add(&GetWanted {}, &node.document(now()));
    exchanges.add(&rollback(ticket), &node.rollback(&rollback(ticket), now()).unwrap());
    exchanges.add(&probe(), &probed());
    exchanges.0
}

#[derive(Default)]
struct Exchanges(BTreeMap<&'static str, (Value, Value)>);

impl Exchanges {
    fn add<C: Call>(&mut self, request: &C, reply: &C::Reply) {
        let request = serde_json::to_value(request).expect("a request is JSON");
        self.0.insert(C::PATH, (request, serde_json::to_value(reply).expect("a reply is JSON")));
    }
}

/// A sample request to measure. [`probed`] has an invented reply, because only a network could answer.
fn probe() -> Probe {
    Probe {
        run: 7_340_032,
        targets: vec![address(2)],
        count: 3,
        settle: Duration::from_millis(200),
        interval: Duration::from_millis(50),
        timeout: Duration::from_millis(600),
        listen: Duration::ZERO,
    }
}

fn probed() -> Probed {
    let rtts_ns = vec![100_081_000, 100_093_500, 100_112_750];
    let delays_ns = vec![50_021_400, 50_022_300, 50_031_900, 50_040_100];
    let heard = Heard { from: address(2), to: address(1), requests: 4, dropped: 0, delays_ns };
    Probed {
        echoes: vec![Echoes { sent: 3, rtts_ns, ..Echoes::of(address(2)) }],
        heard: vec![heard],
        mute: BTreeSet::new(),
        discards: Discards::default(),
        late_ns: 84_000,
    }
}
