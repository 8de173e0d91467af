//! `netemctl verify`: measures all pairs of nodes and compares them with the state in force.

mod selection;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Serialize;
use tokio::time::sleep;

use self::selection::{PairOptions, Selection};
use super::{
    Context, Exit, Failure,
    apply::{in_force_of, outside},
    counters::Overflow,
    output::{self, JsonForm},
    progress::Progress,
    render::{Axis, count, escape::RED, matrix, millis, table},
    report::{ReportFile, Texts, document},
    routed,
    timing::time_limit,
    unjudged::{too_busy, unjudged},
};
use crate::{
    fleet::{Pace, Terms, split},
    plan::{Inventory, Partition, Wanted},
    probe::{Measured, Pair, Report, Tolerance, Verdict},
    report::range,
    topology::{NodeName, Rtt, hostlist},
    wire::{GetCounters, GetHost, Host, Routed},
};

/// The time between two measurements of `--watch`.
const PAUSE: Duration = Duration::from_secs(1);

/// The maximum number of pairs that are listed with their figures.
///
/// The matrix has all pairs.
const MAX_LISTED: usize = 10;

/// Measure all pairs of nodes and compare with what is in force
///
/// Measures every ordered pair by ICMP echo, on every address. A pair is right if its median RTT is within the
/// tolerance and at most one request in ten is lost. A pair that a partition cuts is right if nothing arrives. Jitter,
/// slots and low rates widen the tolerance; configured loss widens the allowed loss. verify measures wrong pairs up to
/// three more times and uses all answers. Exit code 4: a pair is wrong.
///
/// Between nodes of one machine, such as those of a lab, the one-way delay of the requests is judged, too. A link with
/// jitter must vary, and only a link that duplicates packets may give two answers.
///
/// A pair is filtered if a firewall of one of its nodes dropped the missing packets. The output names the node.
///
/// The agents measure how late their own timers are. If a machine is late, requests are sent more slowly. A pair is
/// busy if the lateness explains its error.
///
/// Each agent also listens for requests, so one-way cuts are distinguished from two-way cuts. `heard` in the
/// matrix: requests arrive, answers are cut. Partitions by port are not measured.
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// Echo requests to each address
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,

    /// Tolerance in percent of the wanted RTT
    ///
    /// At least 1 ms; on a quiet network, less is possible.
    #[arg(long, default_value_t = 2.0, value_name = "PERCENT", value_parser = percent)]
    tolerance: f64,

    /// Least time between two requests to an address
    ///
    /// 50 ms or more. Links with jitter or a low rate may need more, and a machine sends at most 1,000 requests a second.
    #[arg(long, value_name = "TIME", value_parser = time_limit)]
    interval: Option<Duration>,

    /// Write a report (.html, .svg, .md, .csv, .json)
    ///
    /// HTML has heat maps and tables, SVG the heat maps, CSV a line for each pair and address, JSON the document of
    /// --json. Several reports: repeat the option.
    #[arg(long, value_name = "FILE", value_parser = ReportFile::parse)]
    report: Vec<ReportFile>,

    /// Leave out nodes that do not answer or are outdated
    #[arg(long)]
    allow_missing: bool,

    /// Measure again and again until Ctrl-C
    ///
    /// A terminal shows the last report. With --json=lines, each report is a line. The exit code is that of the last
    /// report.
    #[arg(long)]
    watch: bool,

    #[command(flatten, next_help_heading = "Pairs")]
    pairs: PairOptions,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value),
        _ => Err("write a percentage between 0 and 100".to_owned()),
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Verified<'a> {
    ok: bool,
    generation: u64,
    topology: Option<&'a str>,
    overlays: Vec<&'a str>,
    partitions: Vec<&'a str>,
    /// The choice of the pairs that were measured.
    selection: Selection,
    /// The nodes that were not measured: they do not answer, or they have another document.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<NodeName>,
    /// The nodes of the inventory that are not in the topology in force.
    ///
    /// Their links have no wanted delay.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outside: Vec<NodeName>,
    /// The partitions that cut by port.
    ///
    /// ICMP echo cannot measure them.
    not_measured: Vec<&'a str>,
    /// The packets that full queues dropped during the measurement.
    overflowed: Vec<Overflow>,
    /// The routes of nodes to networks behind other nodes.
    ///
    /// Packets on these routes are not measured.
    routed: BTreeMap<NodeName, Routed>,
    #[serde(flatten)]
    report: &'a Report,
}

impl Verify {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Failure> {
        self.report.iter().try_for_each(ReportFile::check)?;
        if !self.watch {
            return self.measure(context);
        }
        let pause = async |_: &Progress| {
            sleep(PAUSE).await;
            Ok(())
        };
        let mut last = None;
        loop {
            let measured = self.measure(context).map(|exit| last = Some(exit));
            match measured.and_then(|()| context.ask("waiting", pause)) {
                Ok(()) => {}
                // The nodes may agree or answer again in a moment.
                Err(failure) if [Exit::Conflict, Exit::Unreachable].contains(&failure.exit) => {
                    context.complain(&failure);
                    context.ask("waiting", pause)?;
                }
                Err(failure) if failure.exit == Exit::Interrupted && last.is_some() => break,
                Err(failure) => return Err(failure),
            }
        }
        Ok(last.unwrap_or(Exit::Ok))
    }

    /// Measures once, and prints the report.
    fn measure(&self, context: &Context) -> Result<Exit, Failure> {
        let fleet = context.fleet()?;
        let tolerance = Tolerance { share: self.tolerance / 100.0, ..Tolerance::default() };
        let all: Vec<NodeName> = fleet.inventory().nodes.keys().cloned().collect();
        let (wanted, whole, fleet, selection, report, overflowed, routed, kernels) =
            context.ask("reading the nodes", async |progress| {
                let (document, fleet) = if self.allow_missing {
                    fleet.document_with_holders().await?
                } else {
                    (fleet.document().await?, fleet)
                };
                let (wanted, whole) = (document.in_force(), document.lasting());
                let (chosen, selection) = self.pairs.select(&wanted, fleet.inventory())?;
                let pairs = count(chosen.len(), "pair");
                let most = fleet.most_requests(chosen.len());
                if self.count > most {
                    let message = format!("too many requests: {pairs} with {} each", self.count);
                    return Err(Failure::new(Exit::Usage, message).hint(format!("use --count {most} or less")));
                }
                let terms = Terms { pairs: chosen, count: self.count, interval: self.interval, tolerance };
                let survey = fleet.survey(&wanted, terms).await?;
                context
                    .check_time_for(&format!("measuring {pairs}"), survey.takes())
                    .map_err(|failure| failure.hint("increase --timeout, or reduce --count"))?;
                let before = split(fleet.call(context.timeouts(), |_| GetCounters {}).await).0;
                progress.begin(format!("measuring {pairs}"));
                let tell = |now: Pace| progress.expects(measuring(&pairs, now), now.left);
                let report = fleet.verify(&wanted, &survey, tell).await?;
                let after = split(fleet.call(context.timeouts(), |_| GetCounters {}).await).0;
                let hosts = split(fleet.call(context.timeouts(), |_| GetHost {}).await).0;
                let mut kernels: BTreeMap<String, BTreeSet<NodeName>> = BTreeMap::new();
                for (node, host) in &hosts {
                    kernels.entry(host.kernel.clone()).or_default().insert(node.clone());
                }
                let routed = |(node, host): (NodeName, Host)| Some((node, host.routed(&wanted.inventory)?));
                let overflowed = Overflow::between(&wanted.inventory, &before, &after);
                let routed = hosts.into_iter().filter_map(routed).collect();
                if !fleet.document().await?.in_force().is_equivalent_to(&wanted) {
                    return Err(Failure::new(Exit::Conflict, "the nodes changed during the measurement")
                        .hint(why_it_changed(&wanted)));
                }
                Ok((wanted, whole, fleet, selection, report, overflowed, routed, kernels))
            })?;
        let is_missing = |node: &NodeName| !fleet.inventory().nodes.contains_key(node);
        let verified = Verified {
            ok: report.is_right(),
            generation: wanted.generation,
            topology: wanted.topology.as_ref().map(crate::topology::Topology::name),
            overlays: wanted.overlays.iter().map(|overlay| overlay.name.as_str()).collect(),
            partitions: wanted.partitions.iter().map(|partition| partition.name.as_str()).collect(),
            selection,
            missing: all.into_iter().filter(is_missing).collect(),
            outside: wanted.outside(),
            not_measured: by_port(&wanted).map(|partition| partition.name.as_str()).collect(),
            overflowed,
            routed,
            report: &report,
        };
        if self.watch {
            context.clear_screen();
        }
        let overflowed = verified.overflowed.iter().take(MAX_LISTED).map(Overflow::warning);
        let warnings: Vec<String> = overflowed.chain(routed::warning(&verified.routed)).collect();
        let missing = match &verified.missing[..] {
            [] => String::new(),
            missing => {
                format!("\nnot measured (no answer, or left out of the last change): {}\n", hostlist::fold(missing))
            }
        };
        context.answer(&verified, || {
            let warnings = warnings.concat();
            let line_break = if warnings.is_empty() { "" } else { "\n" };
            let sample = verified.selection.paragraph(report.pairs.len());
            draw(&wanted, &whole, fleet.inventory(), &report) + &sample + &missing + line_break + &warnings
        })?;
        if !self.report.is_empty() {
            let json = output::document(&verified, JsonForm::Pretty)? + "\n";
            let unjudged = too_busy(&report).unwrap_or_default() + &unjudged(&report) + &missing;
            let selection = verified.selection.phrase(report.pairs.len());
            let texts = Texts { selection, warnings, unjudged, json };
            let document = document((&wanted, &whole), &report, &kernels, texts);
            if let Err(failure) = self.report.iter().try_for_each(|file| file.write(&document)) {
                context.complain(&failure);
                return Ok(failure.exit);
            }
        }
        Ok(if report.is_right() { Exit::Ok } else { Exit::Differs })
    }
}

/// A hint after a change during the measurement.
fn why_it_changed(wanted: &Wanted) -> String {
    let flaps = |partition: &&Partition| partition.timing.is_some_and(|timing| timing.flap.is_some());
    match wanted.partitions.iter().find(flaps) {
        Some(Partition { name, .. }) => format!("partition {name} flaps; heal it first: netemctl heal {name}"),
        None => {
            "a time limit may have ended, or another controller made a change; run netemctl verify again".to_owned()
        }
    }
}

/// The label of the measurement in progress messages.
fn measuring(pairs: &str, Pace { slow, is_repeat, .. }: Pace) -> String {
    let slow = match slow {
        0 | 1 => String::new(),
        2 => " (at half speed: a machine is busy)".to_owned(),
        slow => format!(" (at 1/{slow} of the speed: a machine is busy)"),
    };
    if is_repeat { format!("measuring unclear pairs again{slow}") } else { format!("measuring {pairs}{slow}") }
}

/// The partitions that cut some ports only.
fn by_port(wanted: &Wanted) -> impl Iterator<Item = &Partition> {
    wanted.partitions.iter().filter(|partition| !partition.ports.is_empty())
}

fn draw(wanted: &Wanted, whole: &Wanted, inventory: &Inventory, report: &Report) -> String {
    let nodes: Vec<NodeName> = match &wanted.topology {
        Some(topology) => topology.nodes().to_vec(),
        None => inventory.nodes.keys().cloned().collect(),
    };
    let mut text = too_busy(report).map(|busy| format!("{busy}\n")).unwrap_or_default();
    text += &format!(
        "{}{}\n\nmeasured RTT in ms, median of the worst address; ! = not OK\n",
        in_force_of(wanted, whole),
        outside(wanted)
    );
    let axes = Axis::of(&nodes, wanted.topology.as_ref());
    let by_pair: BTreeMap<_, _> = report.pairs.iter().map(|pair| ((&pair.from, &pair.to), pair)).collect();
    text += &matrix(&axes, |pairs| cell(&mut pairs.filter_map(|pair| by_pair.get(&pair).copied())));

    let listed =
        report.pairs.iter().filter(|pair| pair.verdict != Verdict::Right || pair.wanted.is_some()).take(MAX_LISTED);
    let has_one_way = |pair: &Pair| pair.measured.iter().any(|measured| measured.one_way_ns.is_some());
    let is_rtt_only = !report.pairs.iter().filter(|pair| pair.wanted.is_some()).all(has_one_way);
    let one_way = if is_rtt_only { "; no one-way delays, because clocks may differ" } else { "" };
    text += &format!("\nlargest errors, RTT in ms{one_way}\n");
    let header = ["FROM", "TO", "WANTED", "MEDIAN", "P1", "P99", "ERROR", "ALLOWED", "LOST", "VERDICT"];
    text += &table(&header, listed.map(row));
    let right = report.pairs.iter().filter(|pair| pair.verdict == Verdict::Right).count();
    let Tolerance { share, floor_ns } = report.tolerance;
    // Jitter, slots and low rates widen the allowed error of a pair. The column ALLOWED shows the allowed error.
    let is_widened = |pair: &Pair| {
        let tolerated = pair.wanted.map(|wanted| report.tolerance.of_ns(wanted));
        pair.measured.iter().any(|measured| measured.allowed_error_ns > tolerated)
    };
    let is_random = report.pairs.iter().any(is_widened);
    let wider = if is_random { ", wider where jitter, slots or low rates require it" } else { "" };
    let tolerance = format!("(tolerance {} %, at least {:.2} ms{wider})", share * 100.0, floor_ns as f64 / 1e6);
    for Partition { name, ports, .. } in by_port(wanted) {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        text += &format!("\npartition {name} not measured: verify cannot test ports ({})\n", ports.join(", "));
    }
    text += &unjudged(report);
    text + &match report.wrong {
        0 if right < report.pairs.len() => format!("\n{} OK {tolerance}\n", count(right, "pair")),
        0 => format!("\nall {} OK {tolerance}\n", count(right, "pair")),
        wrong => format!("\n{} wrong, {right} OK {tolerance}\n", count(wrong, "pair")),
    }
}

/// One cell of the matrix: the median RTT, or the range of medians.
///
/// `cut`: no requests arrive. `heard`: requests arrive, and answers are cut. `!` in red: a pair is wrong.
fn cell(pairs: &mut dyn Iterator<Item = &Pair>) -> String {
    let (mut is_measured, mut cut, mut heard, mut wrong, mut medians) = (false, false, false, false, Vec::new());
    for pair in pairs {
        is_measured = true;
        cut |= pair.wanted.is_none() && !pair.arrives;
        heard |= pair.wanted.is_none() && pair.arrives;
        wrong |= pair.verdict != Verdict::Right;
        medians.extend(pair.worst().and_then(|measured| measured.median));
    }
    let figure = range(medians.into_iter(), millis).unwrap_or_else(|| match (is_measured, cut, heard) {
        (false, _, _) => String::new(),
        (true, true, _) => "cut".to_owned(),
        (true, false, true) => "heard".to_owned(),
        (true, false, false) => "none".to_owned(),
    });
    if wrong { format!("{figure}!{RED}") } else { figure }
}

/// The only address family with silent addresses, with a space.
///
/// Empty: both families or no family has silent addresses, or no address answers.
fn silent_family(pair: &Pair) -> &'static str {
    let is_silent = |measured: &&Measured| measured.median.is_none();
    let is_some = |is_v4| pair.measured.iter().filter(is_silent).any(|measured| measured.address.is_ipv4() == is_v4);
    match (pair.measured.iter().all(|measured| measured.median.is_none()), is_some(true), is_some(false)) {
        (false, true, false) => "IPv4 ",
        (false, false, true) => "IPv6 ",
        _ => "",
    }
}

fn row(pair: &Pair) -> Vec<String> {
    let worst = pair.worst();
    let allowed = worst.and_then(|worst| worst.allowed_early_ns.zip(worst.allowed_error_ns));
    let allowed = allowed.map(|(early, late)| format!("-{:.2} to +{:.2}", early as f64 / 1e6, late as f64 / 1e6));
    let wanted_loss = match pair.wanted {
        Some(_) if pair.wanted_loss > 0.0 => format!(" ({} % expected)", (1e5 * pair.wanted_loss).round() / 1e3),
        _ => String::new(),
    };
    let error = worst.and_then(|worst| worst.error_ns).map(|error| format!("{:+.2}", error as f64 / 1e6));
    let sent: u64 = pair.measured.iter().map(|measured| u64::from(measured.sent)).sum();
    let answers: usize = pair.measured.iter().map(|measured| measured.rtts_ns.len()).sum();
    vec![
        pair.from.to_string(),
        pair.to.to_string(),
        match pair.wanted {
            None if pair.arrives => "heard".to_owned(),
            None => "cut".to_owned(),
            Some(Rtt::ZERO) => "LAN".to_owned(),
            Some(wanted) => format!("{}", wanted.as_nanos() as f64 / 1e6),
        },
        worst.and_then(|worst| worst.median).map(millis).unwrap_or_default(),
        worst.and_then(|worst| worst.p1).map(millis).unwrap_or_default(),
        worst.and_then(|worst| worst.p99).map(millis).unwrap_or_default(),
        error.unwrap_or_default(),
        allowed.unwrap_or_default(),
        format!("{}/{sent}{wanted_loss}", sent.saturating_sub(answers as u64)),
        match pair.verdict {
            Verdict::Busy => {
                let late_ns = pair.measured.iter().map(|measured| measured.late_ns).max().unwrap_or_default();
                format!("busy, {:.1} ms late", late_ns as f64 / 1e6)
            }
            Verdict::Right | Verdict::NotJudged => pair.verdict.to_string(),
            Verdict::Off => format!("{}{}", pair.verdict, one_way(pair)),
            verdict if (Verdict::Lossless..=Verdict::Off).contains(&verdict) => verdict.to_string(),
            verdict => {
                let arrived = pair.measured.iter().map(|measured| measured.arrived as usize).sum();
                format!("{}{verdict}, {} heard", silent_family(pair), count(arrived, "request"))
            }
        },
    ]
}

/// The one-way delay of a pair whose RTT is as expected.
fn one_way(pair: &Pair) -> String {
    let is_expected = |measured: &Measured| {
        let allowed = measured.error_ns.zip(measured.allowed_error_ns);
        allowed.is_some_and(|(error, allowed)| error.unsigned_abs() <= allowed)
    };
    let worst =
        pair.measured.iter().filter(|measured| is_expected(measured)).filter_map(|measured| measured.one_way_ns);
    match (pair.measured.iter().all(is_expected), worst.max(), pair.wanted_one_way) {
        (true, Some(one_way), Some(wanted)) => {
            format!(" one way: {:.1}, not {} ms", one_way as f64 / 1e6, wanted.as_nanos() as f64 / 1e6)
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        probe::{Expectation, Expected, Sample, judge},
        topology::Link,
    };

    #[test]
    fn the_matrix_and_the_table_show_the_worst_address_and_the_family_that_does_not_answer() {
        let link = Link { delay: "50ms".parse().unwrap(), ..Link::default() };
        let expectation = Some(Expectation::of(&link, &link, Duration::from_secs(1)));
        let expected = Expected { echo: expectation, request: expectation };
        let sample = |rtt_ms: &[u64]| {
            let rtts_ns = rtt_ms.iter().map(|ms| ms * 1_000_000).collect();
            Sample { sent: 9, rtts_ns, arrived: 9, ..Sample::default() }
        };
        let [from, to]: [NodeName; 2] = ["n1", "n2"].map(|name| name.parse().unwrap());
        let judged = |v4: &[u64], v6: &[u64]| {
            let samples = ["10.78.0.2", "fd78::2"].map(|address| address.parse().unwrap());
            let samples = samples.into_iter().zip([sample(v4), sample(v6)]).collect();
            judge((&from, &to), expected, samples, [Tolerance::default(); 2], 200_000)
        };
        let slow = judged(&[100; 9], &[120; 9]);
        assert_eq!(cell(&mut [&slow].into_iter()), format!("120.0!{RED}"));
        assert_eq!(row(&slow)[3], "120.0");
        let silent = judged(&[100; 9], &[]);
        assert_eq!(cell(&mut [&silent].into_iter()), format!("none!{RED}"));
        let row = row(&silent);
        assert_eq!((&*row[3], &*row[8]), ("", "9/18"));
        assert!(row[9].starts_with("IPv6 un"), "{row:?}");
    }
}
