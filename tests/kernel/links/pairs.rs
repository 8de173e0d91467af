//! Each direction, each family, each address of a pair of nodes.

use std::time::Duration;

use super::{
    lab,
    measure::{Flow, Pace, streams},
    shape,
    statistics::{assert_near, median},
};

/// The median of 50 delays without jitter is good to what the machine adds.
#[test]
fn each_way_of_an_asymmetric_pair_has_its_own_delay_in_both_families() {
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
        assert_eq!(streamed.arrivals.len(), 50, "none is lost");
        assert_near("median", median(&streamed.delays()), delay + 0.25, 0.25);
    }
}
