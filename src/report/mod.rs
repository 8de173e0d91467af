//! Renders the result of `verify` as a file for people or for other programs: [`Document`] and [`Format`].
//!
//! The renderers read no files and no clocks. [`html`] and [`svg`] escape all texts by `maud`.

mod colour;
mod csv;
mod figures;
mod grid;
mod html;
mod markdown;
mod svg;

pub(crate) use self::figures::range;
use crate::{probe::Report, topology::NodeName};

/// The format of a report, by the ending of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One page without links to other files.
    Html,
    /// The heat maps as one picture.
    Svg,
    /// Tables in GitHub's Markdown.
    Markdown,
    /// A line for each ordered pair and address.
    Csv,
    /// The document that `verify --json` prints.
    Json,
}

impl Format {
    /// The format of a file name; `None`: the ending is unknown.
    pub fn of_ending(ending: &str) -> Option<Self> {
        match ending {
            "html" => Some(Self::Html),
            "svg" => Some(Self::Svg),
            "md" => Some(Self::Markdown),
            "csv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// The content of a report. The texts have no control characters except line breaks.
#[derive(Clone, Debug)]
pub struct Document<'a> {
    /// The version of netemctl.
    pub version: &'a str,
    /// The time of the measurement (RFC 3339).
    pub date: String,
    /// The command that repeats the measurement.
    pub command: String,
    /// The name of the topology; `None`: no topology is in force.
    pub topology: Option<String>,
    /// The text of the topology's file.
    pub source: Option<String>,
    /// Which pairs are measured, in a phrase.
    pub selection: String,
    /// The generation of the document in force.
    pub generation: u64,
    /// The digest of the document in force.
    pub digest: String,
    /// The overlays in force, each in a phrase.
    pub overlays: Vec<String>,
    /// The partitions in force, each in a phrase.
    pub partitions: Vec<String>,
    /// The kernels' releases, each with its nodes as a hostlist.
    pub kernels: Vec<(String, String)>,
    /// The zones in their order.
    pub zones: Vec<Zone>,
    /// The verdicts.
    pub report: &'a Report,
    /// The packets that full queues dropped, and other warnings.
    pub warnings: Vec<String>,
    /// The reasons why pairs are not judged, in paragraphs; empty: all pairs are judged.
    pub unjudged: String,
    /// The answer of `verify --json`.
    pub json: String,
}

/// The nodes of a zone.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The name; `None`: the nodes outside all zones.
    pub name: Option<String>,
    /// The nodes.
    pub nodes: Vec<NodeName>,
}

impl Document<'_> {
    /// The text of the report's file.
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Html => html::page(self),
            Format::Svg => svg::picture(self),
            Format::Markdown => markdown::page(self),
            Format::Csv => csv::table(self),
            Format::Json => self.json.clone(),
        }
    }

    /// The heading of the report.
    fn title(&self) -> String {
        format!("Measured network: {}", self.topology.as_deref().unwrap_or("no topology"))
    }

    /// The facts about the measurement: labels and texts.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let list = |texts: &[String]| if texts.is_empty() { "none".to_owned() } else { texts.join("\n") };
        let kernels: Vec<String> = self.kernels.iter().map(|(kernel, nodes)| format!("{kernel} ({nodes})")).collect();
        let nodes: usize = self.zones.iter().map(|zone| zone.nodes.len()).sum();
        let requests = self.report.pairs.iter().flat_map(|pair| &pair.measured).map(|measured| measured.sent);
        let requests = range(requests.map(u64::from), |sent| sent.to_string());
        let tolerance = self.report.tolerance;
        vec![
            ("Result", self.result()),
            ("Topology", self.topology.clone().unwrap_or_else(|| "none".to_owned())),
            ("Live changes", list(&self.overlays)),
            ("Partitions", list(&self.partitions)),
            ("Document", format!("generation {}, digest {}", self.generation, self.digest)),
            ("Date", self.date.clone()),
            ("Nodes", figures::grouped(nodes)),
            ("Measured pairs", self.selection.clone()),
            ("Requests per pair and address", requests.unwrap_or_else(|| "none".to_owned())),
            (
                "Tolerance",
                format!(
                    "{} %, at least {} ms, wider where jitter, slots or low rates require it",
                    tolerance.share * 100.0,
                    figures::ms(tolerance.floor_ns)
                ),
            ),
            ("Network's own delay", format!("{} ms", figures::ms(self.report.noise_ns))),
            ("Lateness of timers", format!("at most {} ms", figures::ms(self.report.late_ns))),
            ("netemctl", self.version.to_owned()),
            ("Kernels", list(&kernels)),
        ]
    }

    /// A sentence with the numbers of pairs by verdict.
    fn result(&self) -> String {
        let Report { wrong, pairs, busy, mute, filtered, not_judged, .. } = self.report;
        let unjudged = busy + mute + filtered + not_judged;
        let right = pairs.len() - wrong - unjudged;
        let parts = [(*wrong, "wrong"), (unjudged, "not judged"), (right, "OK")];
        let parts = parts.iter().filter(|(number, word)| *number > 0 || *word == "OK");
        let parts: Vec<String> = parts.map(|(number, word)| format!("{} {word}", figures::grouped(*number))).collect();
        format!("{} of {} pairs", parts.join(", "), figures::grouped(pairs.len()))
    }
}
