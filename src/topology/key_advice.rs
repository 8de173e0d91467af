//! Advice for unknown keys: the keys of other tools, and keys in the wrong table.

/// The keys of a link, each with an example of its value.
const PARAMETERS: [(&str, &str); 17] = [
    ("rtt", "\"150ms\""),
    ("delay", "\"75ms\""),
    ("jitter", "\"5ms\""),
    ("jitter-correlation", "\"25%\""),
    ("distribution", "\"normal\""),
    ("loss", "\"0.1%\""),
    ("corrupt", "\"0.1%\""),
    ("duplicate", "\"0.1%\""),
    ("reorder", "\"1%\""),
    ("rate", "\"100mbit\""),
    ("packet-overhead", "\"20B\""),
    ("cell-size", "\"48B\""),
    ("cell-overhead", "\"5B\""),
    ("rate-per", "\"zone\""),
    ("slot", "\"10ms\""),
    ("limit", "1000"),
    ("seed", "42"),
];

/// The keys that belong in `[links]` or its rules, and that users write at the top level by mistake.
pub(super) const OF_LINKS_TABLE: [&str; 9] =
    ["default", "intra-zone", "inter-zone", "matrix", "matrix-is", "override", "overrides", "rtt", "delay"];

/// Keys of other tools, and the advice to the user who wrote such a key.
type Advice = (&'static [&'static str], &'static str);

/// Link parameters of tc, tcconfig, `EnOSlib`, Pumba, Chaos Mesh, Toxiproxy, comcast, containerlab and Kollaps.
const OF_LINKS: [Advice; 16] = [
    (
        &["latency", "lat", "latency-ms", "delay-ms", "time", "one-way-delay", "owd", "default-delay"],
        "write `delay = \"75ms\"` (one way, as in tc) or `rtt = \"150ms\"` (there and back)",
    ),
    (&["ping", "round-trip", "round-trip-time", "rtt-ms"], "write `rtt = \"150ms\"` (there and back)"),
    (
        &["bandwidth", "bw", "throughput", "speed", "target-bw", "default-bw", "default-rate", "capacity", "ceil"],
        "write `rate = \"100mbit\"`",
    ),
    (&["burst", "buffer", "peakrate", "minburst", "mtu"], "a `rate` has no token bucket: remove this key"),
    (&["packet-loss", "loss-rate", "loss-percent", "percent", "drop", "default-loss"], "write `loss = \"0.1%\"`"),
    (&["loss-correlation"], "write `loss = { probability = \"1%\", correlation = \"25%\" }`"),
    (&["gemodel", "loss-gemodel", "gilbert-elliott"], "write `loss.gemodel = { p = \"1%\", r = \"10%\" }`"),
    (&["state", "loss-state"], "write `loss.state = { p13 = \"1%\" }`"),
    (&["ecn"], "write `loss = { probability = \"1%\", ecn = true }`"),
    (&["delay-jitter", "variation", "delay-variation", "delay-distro", "jitter-ms"], "write `jitter = \"5ms\"`"),
    (&["distro", "delay-distribution"], "write `distribution = \"normal\"` beside `jitter`"),
    (&["correlation", "corr", "delay-correlation"], "write `jitter-correlation = \"25%\"` beside `jitter`"),
    (&["corruption"], "write `corrupt = \"0.1%\"`"),
    (&["duplication", "dup"], "write `duplicate = \"0.1%\"`"),
    (&["reordering", "gap", "reorder-gap"], "write `reorder = { probability = \"1%\", gap = 5 }`"),
    (&["queue", "queue-size", "max-queue-size", "queue-length"], "write `limit = 1000`, a number of packets"),
];

/// The ends of a link in other tools.
const OF_ENDS: [Advice; 2] = [
    (
        &["src", "source", "dst", "dest", "destination", "target", "targets", "network", "dst-network", "direction"],
        "write `from` and `to` (one way) or `between = [\"Z1\", \"Z2\"]` (both ways)",
    ),
    (
        &["symmetric", "bidirectional", "a", "b", "endpoints", "nodes", "zones", "pair"],
        "write `between = [\"Z1\", \"Z2\"]` (both ways) or `from` and `to` (one way)",
    ),
];

/// Nodes, zones and rules in other tools.
const OF_TOPOLOGIES: [Advice; 4] = [
    (&["regions", "groups", "datacenters", "roles", "areas"], "write `[zones]` and `Z1 = \"n[1-3]\"`"),
    (&["hosts", "machines", "vms", "node"], "write `nodes = \"n[1-9]\"`"),
    (&["override", "overrides"], "write `[[links.override]]`"),
    (
        &["constraints", "network-constraints", "rules"],
        "write `default = { rtt = \"150ms\" }` in `[links]`, and `[[links.override]]` for single links",
    ),
];

/// Wrong names of the key `probability` in an inner table.
const OF_CHANCES: [Advice; 1] = [(
    &["loss", "percent", "percentage", "rate", "corrupt", "duplicate", "reorder", "random"],
    "write `probability = \"1%\"`",
)];

/// The advice for an unknown key. `what` is the name of the table in messages.
pub(super) fn advice(what: &str, key: &str, value: Option<&str>) -> Option<String> {
    let spelled = key.to_lowercase().replace('_', "-");
    let find = |table: &[Advice]| {
        let found = table.iter().find(|(names, _)| names.contains(&&*spelled));
        found.map(|(_, advice)| (*advice).to_owned())
    };
    let of_link = || {
        let (name, example) = PARAMETERS.iter().find(|(name, _)| *name == spelled)?;
        let value = value.map_or_else(|| (*example).to_owned(), |value| format!("\"{value}\""));
        Some(format!("write `default = {{ {name} = {value} }}` for all links"))
    };
    let above = || {
        let is_top = ["name", "nodes", "zones"].contains(&&*spelled);
        is_top.then(|| format!("move `{spelled}` above `[links]`: a key belongs to the header above it"))
    };
    match what {
        "a link" => find(&OF_LINKS),
        "an override" => find(&OF_ENDS).or_else(|| find(&OF_LINKS)),
        "`links`" => of_link().or_else(above).or_else(|| find(&OF_LINKS)),
        "a topology" => {
            let is_of_links = ["default", "intra-zone", "inter-zone", "matrix", "matrix-is"].contains(&&*spelled);
            let in_links = || of_link().map(|advice| format!("{advice}, in `[links]`"));
            is_of_links
                .then(|| format!("move it into `[links]`, or write `[links.{spelled}]`"))
                .or_else(in_links)
                .or_else(|| find(&OF_TOPOLOGIES))
                .or_else(|| find(&OF_LINKS).map(|advice| format!("{advice}, in a rule of `[links]`")))
        }
        "a loss" | "a chance" | "a reordering" => find(&OF_CHANCES),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_has_two_pieces_of_advice() {
        for words in [&OF_LINKS[..], &OF_ENDS, &OF_TOPOLOGIES, &OF_CHANCES] {
            let mut names: Vec<_> = words.iter().flat_map(|(names, _)| *names).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count);
        }
        let ours = |name: &&str| PARAMETERS.iter().any(|(known, _)| known == name);
        assert!(!OF_LINKS.iter().chain(&OF_ENDS).flat_map(|(names, _)| *names).any(ours));
    }

    #[test]
    fn advice_does_not_depend_on_case_and_underscores() {
        assert_eq!(advice("a link", "Packet_Loss", None), advice("a link", "packet-loss", None));
        assert_eq!(
            advice("`links`", "rtt", Some("20ms")).as_deref(),
            Some("write `default = { rtt = \"20ms\" }` for all links")
        );
        assert_eq!(advice("a node", "latency", None), None);
    }
}
