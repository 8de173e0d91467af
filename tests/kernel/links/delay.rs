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

/// How far bursts of load on the machine may move a mean or a deviation, in milliseconds, beyond the random error.
const LOAD_TOLERANCE: f64 = 0.5;

/// The table entry that stands for one jitter: `NETEM_DIST_SCALE` of `sch_netem.c`.
const SCALE: f64 = 8192.0;

/// A custom table with two humps, one jitter below and one jitter above the mean, each a quarter of a jitter wide.
fn two_humps() -> Vec<i16> {
    let hump = |center: i16| (-1024..1024).step_by(4).map(move |offset: i16| center + offset);
    hump(-8192).chain(hump(8192)).collect()
}

/// All delays that a table yields for [`DELAY`] and [`JITTER`], each with the same probability.
fn delays_by(table: &[i16]) -> Vec<f64> {
    table.iter().map(|entry| DELAY + f64::from(*entry) * JITTER / SCALE).collect()
}

/// The configured delays plus the lateness of the machine, which a link without jitter shows at the same time.
fn with_lateness(population: &[f64], lateness: &[f64]) -> Vec<f64> {
    // Both lists are ordered. A step that is coprime to their lengths pairs their values independently of that order.
    const STEP: usize = 7_919;
    let pair = |index: usize| population[index % population.len()] + lateness[index * STEP % lateness.len()];
    (0..population.len().max(lateness.len()) * 4).map(pair).collect()
}

/// The Kolmogorov-Smirnov distance between 4,000 delays and their own distribution stays below 0.043. The distance
/// between two of these distributions is at least 0.14. A mean is accurate to 0.08 jitters. `reorder = 'jitter'` lets
/// each packet keep the delay that netem drew for it. Delay and jitter are large compared with the machine's lateness,
/// which is measured at the same time.
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
    assert_within("the machine's lateness", median(&lateness), &(0.0..=JITTER / 10.0));
    let uniform: Vec<i16> = (-8_191..=8_191).collect();
    let names = ["uniform", "normal", "pareto", "paretonormal", "table"];
    let shipped = |distribution| distribution_table(distribution).unwrap();
    let [normal, pareto, mixed] = [Distribution::Normal, Distribution::Pareto, Distribution::ParetoNormal].map(shipped);
    let tables = [&uniform[..], normal, pareto, mixed, &table];
    let populations = tables.map(|table| with_lateness(&delays_by(table), &lateness));
    for ((name, stream), expected) in names.iter().zip(&streamed).zip(&populations) {
        let delays = stream.delays();
        let count = delays.len();
        let distance = SIGMAS * error_of_mean(expected, count) + LOAD_TOLERANCE;
        assert_near(&format!("mean of {name}"), mean(&delays), mean(expected), distance);
        let distance = SIGMAS * error_of_deviation(expected, count) + LOAD_TOLERANCE;
        assert_near(&format!("deviation of {name}"), deviation(&delays), deviation(expected), distance);
        for (other, population) in names.iter().zip(&populations) {
            let distance = ks_distance(&delays, population);
            let is_alike = distance <= ks_critical(count);
            assert_eq!(
                is_alike,
                name == other,
                "the distance of the delays of {name} from distribution {other} is {distance}"
            );
        }
    }
}

/// A single overtaken packet fails the test, so order needs no statistics. To keep their order, packets wait for their
/// predecessors. The mean wait depends on the packet rate. 3,000 packets give the mean to half a millisecond. The mean
/// delay of a link without jitter is subtracted.
#[test]
fn jitter_keeps_the_order_unless_reorder_is_jitter() {
    let lab = lab(4);
    let flows: Vec<Flow> = (2..=4).map(|to| Flow::v4(&lab, 1, to)).collect();
    let link = "delay = '20ms'\njitter = '5ms'\ndistribution = 'normal'";
    shape_star(&lab, &[link, &format!("{link}\nreorder = 'jitter'"), "delay = '20ms'"]);
    let streamed = streams(&flows, Pace::of(3_000, Duration::from_millis(1)));
    assert!(streamed.iter().all(|stream| stream.arrivals.len() == 3_000), "packets were lost");
    let overtaken: Vec<usize> = streamed.iter().map(Streamed::overtaken).collect();
    assert_eq!((overtaken[0], overtaken[2]), (0, 0));
    assert!(overtaken[1] > 1_000, "{} packets were overtaken", overtaken[1]);
    let mean_delays = |streamed: &[Streamed]| streamed.iter().map(|stream| mean(&stream.delays())).collect::<Vec<_>>();
    let means = mean_delays(&streamed);
    assert_near("mean added delay with reordering", means[1] - means[2], 0.0, 1.0);
    assert_within("mean added delay in order at 1 kHz", means[0] - means[2], &(3.0..=7.0));

    // At 50 Hz hardly any packet waits for its predecessor, so each keeps the delay that netem drew.
    let sparse = streams(&flows, Pace::of(250, Duration::from_millis(20)));
    assert_eq!(sparse[0].overtaken(), 0);
    let means = mean_delays(&sparse);
    assert_near("mean added delay in order at 50 Hz", means[0] - means[2], 0.3, 2.0);
}

/// The kernel averages each draw with the previous draw. Then it takes the remainder, by the length of the table or by
/// twice the jitter in nanoseconds. The correlation is in the high bits of the averages, and the remainder drops these
/// bits. Uniform jitter at 99.9 % or more is the exception: successive averages differ by less than the width of the
/// jitter. With 2,000 delays the correlation of neighbours is accurate to 0.11. The machine's lateness is correlated
/// too, so a link without correlation is measured at the same time.
#[test]
fn delays_are_correlated_only_if_jitter_is_uniform_and_its_correlation_near_100_percent() {
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
    // A stall of the machine delays successive packets of every link, which is a correlation too. So measure again.
    let mut measured = vec![measure()];
    while measured.len() < 4 && !measured.last().is_some_and(is_right) {
        measured.push(measure());
    }
    assert!(
        measured.last().is_some_and(is_right),
        "correlations for none, uniform 50 %, normal and uniform 99.99 %: {measured:?}"
    );
}
