//! Delay and jitter: the mean, the spread, the shape, and the order in which packets arrive.

use std::{fs, time::Duration};

use netemctl::{plan::distribution_table, topology::Distribution};

use super::{
    lab,
    measure::{Flow, Pace, Streamed, streams},
    shape_star,
    statistics::{
        SIGMAS, assert_near, assert_within, autocorrelation, deviation, error_of_deviation, error_of_mean, ks_critical,
        ks_distance, mean, median,
    },
};

const DELAY: f64 = 150.0;
const JITTER: f64 = 30.0;

/// What the machine may add to a mean or a deviation besides chance, as it is busy in bursts: in milliseconds.
const MACHINE: f64 = 0.5;

/// What a table's entries are multiples of: `NETEM_DIST_SCALE` of `sch_netem.c`.
const SCALE: f64 = 8192.0;

/// A custom table: two humps, one jitter before and one after the mean, each a quarter of a jitter wide.
fn two_humps() -> Vec<i16> {
    let hump = |center: i16| (-1024..1024).step_by(4).map(move |offset: i16| center + offset);
    hump(-8192).chain(hump(8192)).collect()
}

/// All delays that a table can make of [`DELAY`] and [`JITTER`], one as likely as the other.
fn delays_of(table: &[i16]) -> Vec<f64> {
    table.iter().map(|entry| DELAY + f64::from(*entry) * JITTER / SCALE).collect()
}

/// What the machine adds, as seen at the same time on a link without jitter, added to what should be.
fn with_lateness(population: &[f64], lateness: &[f64]) -> Vec<f64> {
    // Both are in an order of their own: a step that has no divisor in common with their lengths mixes them.
    const STEP: usize = 7_919;
    let pair = |index: usize| population[index % population.len()] + lateness[index * STEP % lateness.len()];
    (0..population.len().max(lateness.len()) * 4).map(pair).collect()
}

/// With 4,000 packets the distance of what is drawn from what it is drawn from keeps below 0.043, while the shapes are
/// 0.14 and more from one another; a mean is good to 0.08 jitters. Packets may overtake one another, as each would
/// not keep the delay that it drew otherwise. Jitter and delay are large against what the machine adds, which is
/// measured at the same time.
#[test]
fn every_distribution_has_its_mean_its_spread_and_its_shape() {
    let lab = lab(7);
    let flows: Vec<Flow> = (2..=7).map(|to| Flow::v4(&lab, 1, to)).collect();
    let table = two_humps();
    let text = table.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    fs::write(lab.directory().join("humps.dist"), format!("# two humps\n{text}\n")).unwrap();
    let link = |distribution: &str| {
        format!("delay = '150ms'\njitter = '30ms'\nreorder = 'jitter'\ndistribution = {distribution}")
    };
    let links = ["'uniform'", "'normal'", "'pareto'", "'paretonormal'", "{ table = 'humps.dist' }"].map(link);
    let links: Vec<&str> = links.iter().map(String::as_str).chain(["delay = '150ms'"]).collect();
    shape_star(&lab, &links);

    let streamed = streams(&flows, Pace::of(4_000, Duration::from_millis(3)));
    assert!(streamed.iter().all(|stream| stream.arrivals.len() == 4_000), "packets were lost");
    let lateness: Vec<f64> = streamed[5].delays().iter().map(|delay| delay - DELAY).collect();
    assert_within("the machine's lateness", median(&lateness), &(0.0..=1.0));
    let even: Vec<i16> = (-8_191..=8_191).collect();
    let names = ["uniform", "normal", "pareto", "paretonormal", "table"];
    let own = |distribution| distribution_table(distribution).unwrap();
    let [normal, pareto, mixed] = [Distribution::Normal, Distribution::Pareto, Distribution::ParetoNormal].map(own);
    let tables = [&even[..], normal, pareto, mixed, &table];
    let populations = tables.map(|table| with_lateness(&delays_of(table), &lateness));
    for ((name, stream), expected) in names.iter().zip(&streamed).zip(&populations) {
        let delays = stream.delays();
        let count = delays.len();
        let distance = SIGMAS * error_of_mean(expected, count) + MACHINE;
        assert_near(&format!("mean of {name}"), mean(&delays), mean(expected), distance);
        let distance = SIGMAS * error_of_deviation(expected, count) + MACHINE;
        assert_near(&format!("deviation of {name}"), deviation(&delays), deviation(expected), distance);
        for (other, population) in names.iter().zip(&populations) {
            let distance = ks_distance(&delays, population);
            let is_alike = distance <= ks_critical(count);
            assert_eq!(is_alike, name == other, "the delays of {name} are {distance} from {other}");
        }
    }
}

/// Order takes no statistics: one packet that overtakes another is one too many. How much later packets arrive on
/// average for keeping their order depends on how close they follow one another. 3,000 packets give the mean to half
/// a millisecond; the machine's own lateness, as a link without jitter shows it, is taken off.
#[test]
fn jitter_keeps_the_order_unless_it_may_reorder() {
    let lab = lab(4);
    let flows: Vec<Flow> = (2..=4).map(|to| Flow::v4(&lab, 1, to)).collect();
    let link = "delay = '20ms'\njitter = '5ms'\ndistribution = 'normal'";
    shape_star(&lab, &[link, &format!("{link}\nreorder = 'jitter'"), "delay = '20ms'"]);
    let streamed = streams(&flows, Pace::of(3_000, Duration::from_millis(1)));
    assert!(streamed.iter().all(|stream| stream.arrivals.len() == 3_000), "packets were lost");
    let overtaken: Vec<usize> = streamed.iter().map(Streamed::overtaken).collect();
    assert_eq!((overtaken[0], overtaken[2]), (0, 0));
    assert!(overtaken[1] > 1_000, "{} packets were overtaken", overtaken[1]);
    let later = |streamed: &[Streamed]| streamed.iter().map(|stream| mean(&stream.delays())).collect::<Vec<_>>();
    let means = later(&streamed);
    assert_near("later than without jitter, reordered", means[1] - means[2], 0.0, 1.0);
    assert_within("later than without jitter, in order, at 1 kHz", means[0] - means[2], &(3.0..=7.0));

    // So sparse that hardly a packet has to wait for the one in front of it: the delay is as drawn.
    let sparse = streams(&flows, Pace::of(250, Duration::from_millis(20)));
    assert_eq!(sparse[0].overtaken(), 0);
    let means = later(&sparse);
    assert_near("later than without jitter, in order, at 50 Hz", means[0] - means[2], 0.3, 2.0);
}

/// The kernel mixes each draw with the one before, and then takes the remainder: by the length of the table, or by twice
/// the jitter in nanoseconds. What the mixed numbers have in common is in their high bits, so nothing of it is left, but
/// for a uniform jitter at 99.9 % and more, whose draws are closer to one another than the jitter is wide. Of 2,000
/// independent delays the correlation of neighbours is good to 0.11; that of how late the machine is comes on top, so
/// that a link without correlation is measured at the same time.
#[test]
fn correlation_of_delays_is_what_the_kernel_makes_of_it() {
    let lab = lab(5);
    let flows: Vec<Flow> = (2..=5).map(|to| Flow::v4(&lab, 1, to)).collect();
    let link = |distribution: &str, correlation: &str| {
        format!(
            "delay = '100ms'\njitter = '20ms'\nreorder = 'jitter'\n\
             distribution = '{distribution}'\njitter-correlation = '{correlation}'"
        )
    };
    let links = [("uniform", "0%"), ("uniform", "50%"), ("normal", "99.99%"), ("uniform", "99.99%")];
    let links = links.map(|(distribution, correlation)| link(distribution, correlation));
    shape_star(&lab, &links.each_ref().map(String::as_str));
    let measure = || -> [f64; 4] {
        let streamed = streams(&flows, Pace::of(2_000, Duration::from_millis(2)));
        let measured: Vec<f64> = streamed.iter().map(|stream| autocorrelation(&stream.delays_as_sent())).collect();
        measured.try_into().expect("four flows")
    };
    let is_right =
        |&[none, half, normal, all]: &[f64; 4]| half < none + 0.15 && normal < none + 0.15 && all > none + 0.5;
    // A machine that stalls delays packets in a row, whatever the link, which is a correlation as well: it has another try.
    let mut measured = vec![measure()];
    while measured.len() < 4 && !measured.last().is_some_and(is_right) {
        measured.push(measure());
    }
    assert!(measured.last().is_some_and(is_right), "none, uniform 50 %, normal and uniform 99.99 %: {measured:?}");
}
