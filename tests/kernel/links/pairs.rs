//! Links by direction, by address family, and with several addresses.

use std::time::Duration;

use netemctl::{
    fleet::{Access, Edit, Fleet},
    lab::LabDirectory,
    topology::{NodeName, Source, Topology},
};
use tokio_util::sync::CancellationToken;

use super::{
    lab,
    measure::{Flow, Pace, streams},
    shape,
    statistics::{assert_within, quantile},
    topology,
};
use crate::sockets::{v4, v6};

/// No packet arrives early. The fastest of 50 packets shows the configured delay, even on a busy machine.
#[test]
fn each_direction_of_an_asymmetric_pair_has_its_own_delay_in_both_families() {
    let lab = lab(2);
    let flows = [Flow::v4(&lab, 1, 2), Flow::v6(&lab, 1, 2), Flow::v4(&lab, 2, 1), Flow::v6(&lab, 2, 1)];
    shape(
        &lab,
        2,
        "default = { rtt = '0ms' }\n\
         [[links.override]]\nfrom = 'n1'\nto = 'n2'\ndelay = '10ms'\n\
         [[links.override]]\nfrom = 'n2'\nto = 'n1'\ndelay = '60ms'\n",
    );
    let streamed = streams(&flows, Pace::of(50, Duration::from_millis(10)));
    for (streamed, delay) in streamed.iter().zip([10.0, 10.0, 60.0, 60.0]) {
        assert_eq!(streamed.arrivals.len(), 50, "packets were lost");
        assert_within("least delay", quantile(&streamed.delays(), 0.0), &(delay..=delay + 0.5));
    }
}

/// The three addresses of a node share the rate of one link.
#[test]
fn all_addresses_of_a_node_are_one_link() {
    let lab = lab(2);
    let second = v4(0x0902);
    drop(lab.exec("n2", &format!("ip address add {second}/16 dev db0")));
    let flows = [v4(2), v6(2), second].map(|to| {
        let from = if to.is_ipv4() { v4(1) } else { v6(1) };
        Flow::open(&lab, (1, from), (2, to))
    });
    let mut inventory = LabDirectory::of_user(Some(lab.directory().to_owned())).unwrap().find().unwrap().inventory();
    inventory.nodes.get_mut(&"n2".parse::<NodeName>().unwrap()).unwrap().addresses.push(second);
    let text = topology(2, "default = { delay = '20ms', rate = '1mbit' }");
    let wanted = Topology::parse(Source::new("addresses.toml", text)).unwrap();
    let fleet = Fleet::new(inventory.clone(), Access::default());
    let interrupt = CancellationToken::new();
    let terms = Edit::replacing();
    let edit = fleet.edit(&terms, &interrupt, |state| state.with_topology(wanted, inventory));
    drop(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(edit).unwrap());

    for streamed in streams(&flows, Pace::of(50, Duration::from_millis(20))) {
        assert_eq!(streamed.arrivals.len(), 50, "packets were lost");
        // A packet of 66 bytes takes half a millisecond at 1 Mbit/s.
        assert_within("least delay", quantile(&streamed.delays(), 0.0), &(20.5..=21.5));
    }
    // Simultaneous bursts to all addresses take the time of 90 packets of at least 1,042 bytes, plus the delay.
    for streamed in streams(&flows, Pace::burst(30).sized(1_000)) {
        assert_eq!(streamed.arrivals.len(), 30, "packets were lost");
        assert_within("arrival of the last packet", streamed.arrivals[29].at, &(750.0..=3_000.0));
    }
}
