//! TCP goodput under jitter, which is why jitter keeps packets in order.

use std::time::Duration;

use super::{lab, measure::goodputs, shape};
use crate::{lab::Lab, sockets::v4};

/// Slow start ends within this time. Jitter prolongs it: CUBIC (`HyStart`) takes a growing delay for a growing queue.
const WARM_UP: Duration = Duration::from_secs(4);
const LASTING: Duration = Duration::from_secs(3);

const STEADY: &str = "delay = '20ms'";
const IN_ORDER: &str = "delay = '20ms'\njitter = '5ms'\ndistribution = 'normal'";

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
