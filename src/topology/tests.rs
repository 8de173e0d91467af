//! Tests of valid files: nodes, zones, links and words. The errors of invalid files are in `tests/topologies/`.

use proptest::{prelude::*, sample::Index};

use super::*;

const HIERARCHICAL: &str = r#"
name = "hierarchical-9"
[zones]
Z1 = "n[1-3]"
Z2 = ["n4", "n[5-6]"]
Z3 = "n[7-9]"
[links]
intra-zone = { rtt = "20ms" }
inter-zone = { rtt = "150ms" }
"#;

fn source(text: &str) -> Source {
    Source::new("test.toml", text)
}

fn topology(text: &str) -> Topology {
    Topology::parse(source(text)).unwrap_or_else(|rejected| panic!("{}", rejected.render(false, 100)))
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn delay(topology: &Topology, from: &str, to: &str) -> String {
    topology.link(&node(from), &node(to)).expect("a link").delay.to_string()
}

#[test]
fn the_example_in_the_documentation_of_topology_files_is_valid() {
    let documentation = include_str!("mod.rs").lines().map_while(|line| line.strip_prefix("//!"));
    let example = documentation.skip_while(|line| !line.contains("```toml")).skip(1);
    let lines: Vec<_> = example.take_while(|line| !line.contains("```")).collect();
    let topology = topology(&lines.join("\n"));
    assert_eq!(delay(&topology, "n9", "n2"), "105ms");
    assert_eq!(delay(&topology, "n1", "n7"), "5ms");
}

#[test]
fn zones_have_their_nodes_in_the_order_of_the_file() {
    let topology = topology(HIERARCHICAL);
    assert_eq!(topology.name(), "hierarchical-9");
    assert_eq!(hostlist::fold(topology.nodes()), "n[1-9]");
    let zones: Vec<_> = topology.zones().map(|(name, nodes)| format!("{name}={}", hostlist::fold(nodes))).collect();
    assert_eq!(zones, ["Z1=n[1-3]", "Z2=n[4-6]", "Z3=n[7-9]"]);
    assert_eq!(topology.zone_of(&node("n6")).map(ZoneName::as_str), Some("Z2"));
    assert_eq!(topology.zone_of(&node("n10")), None);
    assert!(topology.contains(&node("n9")) && !topology.contains(&node("Z1")));
}

#[test]
fn nodes_and_zones_are_in_the_order_of_the_file() {
    let topology =
        topology("name = 't'\nzones.b = 'x'\nnodes = ['z', 'y']\nzones.a = 'w'\nlinks.default.rtt = '0ms'\n");
    let nodes: Vec<_> = topology.nodes().iter().map(NodeName::as_str).collect();
    assert_eq!(nodes, ["x", "z", "y", "w"]);
    assert_eq!(topology.zones().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(topology.zone_of(&node("y")), None);
    assert_eq!(topology.zone_of(&node("w")).map(ZoneName::as_str), Some("a"));
}

#[test]
fn zone_rules_set_the_delays_of_links() {
    let topology = topology(HIERARCHICAL);
    assert_eq!(delay(&topology, "n1", "n2"), "10ms");
    assert_eq!(delay(&topology, "n1", "n9"), "75ms");
    assert_eq!(topology.rtt(&node("n1"), &node("n9")), Some(Rtt::from_nanos(150_000_000)));
    assert_eq!(topology.link(&node("n1"), &node("n1")), None);
    assert_eq!(topology.link(&node("n1"), &node("n10")), None);
    assert_eq!(topology.rtt(&node("n10"), &node("n1")), None);
}

#[test]
fn a_link_without_a_rule_is_the_lan() {
    let topology = topology("name = 't'\nnodes = 'a'\n[zones]\nZ = 'b'\nY = 'c'\n[links]\ninter-zone.rtt = '2ms'\n");
    assert_eq!(topology.link(&node("a"), &node("b")), Some(Link::default()));
    assert_eq!(delay(&topology, "b", "c"), "1ms");
}

#[test]
fn zone_rules_do_not_cover_nodes_outside_zones() {
    let text = HIERARCHICAL.replace("[zones]", "nodes = 'gw'\n[zones]") + "default.delay = '3ms'\n";
    let topology = topology(&text);
    assert_eq!(delay(&topology, "gw", "n1"), "3ms");
    assert_eq!(delay(&topology, "n1", "gw"), "3ms");
    assert_eq!(delay(&topology, "n1", "n2"), "10ms");
}

#[test]
fn the_last_override_of_a_link_wins() {
    let text = HIERARCHICAL.to_owned()
        + r#"
        [[links.override]]
        between = ["Z1", "Z3"]
        rtt = "210ms"
        [[links.override]]
        from = "n1"
        to = ["Z2", "n7"]
        delay = "5ms"
        [[links.override]]
        between = ["n[1-2]", "*"]
        delay = "1us"
        [[links.override]]
        between = ["Z2", "Z2"]
        rtt = "0ms"
        "#;
    let topology = topology(&text);
    assert_eq!(delay(&topology, "n3", "n8"), "105ms");
    assert_eq!(delay(&topology, "n8", "n3"), "105ms");
    assert_eq!(delay(&topology, "n1", "n7"), "1us");
    assert_eq!(delay(&topology, "n7", "n2"), "1us");
    assert_eq!(delay(&topology, "n3", "n4"), "75ms");
    assert_eq!(delay(&topology, "n4", "n6"), "0ms");
}

#[test]
fn from_and_to_are_one_way() {
    let text = HIERARCHICAL.to_owned() + "[[links.override]]\nfrom = ['Z1']\nto = 'n[4-5]'\ndelay = '1ms'\n";
    let topology = topology(&text);
    assert_eq!(delay(&topology, "n1", "n4"), "1ms");
    assert_eq!(delay(&topology, "n4", "n1"), "75ms");
    assert_eq!(topology.rtt(&node("n1"), &node("n4")), Some(Rtt::from_nanos(76_000_000)));
}

#[test]
fn a_word_names_a_zone_or_a_node_or_a_hostlist() {
    let topology = topology(HIERARCHICAL);
    let selected = |word: &str| hostlist::fold(topology.select(word).unwrap());
    assert_eq!(selected("Z2"), "n[4-6]");
    assert_eq!(selected("n9"), "n9");
    assert_eq!(selected("n[8-9,2]"), "n[2,8-9]");
    assert_eq!(selected("Z3,n1,Z[2-3]"), "n[1,4-9]");
    assert_eq!(selected("*"), "n[1-9]");
}

#[test]
fn an_unknown_word_gets_a_suggestion() {
    let topology = topology(HIERARCHICAL);
    let error = |word: &str| topology.select(word).expect_err(word);
    assert_eq!(error("z1").to_string(), "no zone or node is called `z1`; did you mean `Z1`?");
    assert_eq!(error("n[8-10]").word, "n10");
    assert_eq!(error("galera").to_string(), "no zone or node is called `galera`");
    assert_eq!(error("").to_string(), "no zone or node is called ``");
    assert_eq!(error("n[1").to_string(), "unmatched bracket in `n[1`");
}

#[test]
fn a_topology_is_serialized_as_its_source() {
    let topology = topology(HIERARCHICAL);
    let json = serde_json::to_value(&topology).unwrap();
    assert_eq!(json, serde_json::to_value(source(HIERARCHICAL)).unwrap());
    assert_eq!(serde_json::from_value::<Topology>(json).unwrap(), topology);

    let broken = serde_json::json!({ "path": "b.toml", "text": "name = 1" });
    let error = serde_json::from_value::<Topology>(broken).unwrap_err().to_string();
    assert!(error.contains("b.toml:1:8: `name` must be a string"), "{error}");
}

#[test]
fn a_file_that_is_too_large_is_not_parsed() {
    let rejected = Topology::parse(source(&"#".repeat(MAX_FILE_BYTES + 1))).unwrap_err();
    assert_eq!(rejected.to_string(), "test.toml:1:1: the file is larger than 4 MiB");
}

#[test]
fn nodes_are_counted_before_hostlists_are_expanded() {
    let many = |nodes: &str| format!("name = 't'\nnodes = {nodes}\n[links]\ndefault.rtt = '0ms'\n");
    assert_eq!(topology(&many("'n[1-131072]'")).nodes().len(), MAX_NODES);
    let rejected = Topology::parse(source(&many("['n[1-131072]', 'm', 'l']"))).unwrap_err();
    assert_eq!(rejected.to_string(), "test.toml:2:25: more than 131072 nodes");
}

#[test]
fn spans_that_are_far_apart_have_separate_excerpts() {
    let filler = "# filler\n".repeat(10_000);
    let text = format!("name = 't'\nnodes = 'n[1-2]'\n{filler}zones.Z = 'n1'\nlinks.default.rtt = '0ms'\n");
    let shown = Topology::parse(source(&text)).unwrap_err().render(false, 80);
    assert!(shown.contains("test.toml:10003:11") && shown.contains("test.toml:2"), "{shown}");
    assert!(shown.lines().count() < 20, "{shown}");
}

#[test]
fn a_hundred_mistakes_are_all_shown() {
    let text = (0..100).fold(String::new(), |text, number| text + &format!("key{number} = 1\n")) + HIERARCHICAL;
    let rejected = Topology::parse(source(&text)).unwrap_err();
    assert_eq!(rejected.problems().len(), 100);
    let shown = rejected.render(false, 80);
    assert_eq!(shown.matches("error: unknown key").count(), 100);
    assert!(shown.ends_with("error: test.toml: 100 errors\n"), "{shown}");
}

#[test]
fn a_very_long_line_has_no_excerpt() {
    let text = format!("name = 't'\nnodes = [{}]\n", "1,".repeat(50_000));
    let shown = Topology::parse(source(&text)).unwrap_err().render(false, 80);
    assert!(shown.contains("test.toml:2:10\n") && shown.contains("note: this is an integer"), "{}", &shown[..2_000]);
    assert!(shown.len() < 200_000);
}

#[test]
fn control_characters_are_removed_from_messages() {
    let rejected = Topology::parse(source("\"\\u001b[31m\" = 1\nname = \"\\u001b\"")).unwrap_err();
    assert!(!rejected.render(false, 80).contains('\u{1b}'));
    assert!(!rejected.to_string().contains('\u{1b}'));
}

fn with_files(text: &str, files: &[(&str, &str)]) -> Source {
    let files = files.iter().map(|&(name, text)| (name.to_owned(), text.to_owned()));
    Source { files: files.collect(), ..Source::new("a/test.toml", text) }
}

fn with_matrix(rules: &str, csv: &str) -> Result<Topology, FileReport> {
    let zones = HIERARCHICAL.split_once("[links]").expect("zones").0;
    let text = format!("{zones}[links]\nmatrix = 'm.csv'\n{rules}");
    Topology::parse(with_files(&text, &[("m.csv", csv)]))
}

#[test]
fn a_matrix_wins_over_zone_rules_and_an_override_wins_over_a_matrix() {
    let rules = "default.rtt = '1ms'\nintra-zone.rtt = '2ms'\ninter-zone.rtt = '4ms'\n\
                 [[links.override]]\nbetween = ['n1', 'n7']\nrtt = '40ms'\n";
    let topology = with_matrix(rules, "ms,Z1,Z2,Z3\nZ1,8,10,20\nZ2,,,\nZ3,,,\n").unwrap();
    assert_eq!(delay(&topology, "n1", "n2"), "4ms", "a cell on the diagonal sets the links inside the zone");
    assert_eq!(delay(&topology, "n4", "n5"), "1ms", "`intra-zone` applies to an empty cell");
    assert_eq!(delay(&topology, "n1", "n4"), "5ms");
    assert_eq!(delay(&topology, "n4", "n1"), "5ms", "one cell sets the RTT of both directions");
    assert_eq!(delay(&topology, "n4", "n7"), "2ms", "`inter-zone` applies to an empty cell");
    assert_eq!(delay(&topology, "n2", "n7"), "10ms");
    assert_eq!(delay(&topology, "n7", "n1"), "20ms");
    assert_eq!(topology.source().references().into_iter().collect::<Vec<_>>(), ["m.csv"]);
}

#[test]
fn a_matrix_of_delays_sets_each_direction_separately() {
    let topology = with_matrix("matrix-is = 'delay'\n", "us,Z1,n7\nZ1,,3\nn7,4,\n").unwrap();
    assert_eq!((delay(&topology, "n2", "n7"), delay(&topology, "n7", "n2")), ("3us".into(), "4us".into()));
    assert_eq!(topology.link(&node("n2"), &node("n8")), Some(Link::default()));
}

#[test]
fn the_origin_of_a_delay_is_a_line_of_the_matrix_or_of_the_topology() {
    let rules = "inter-zone.rtt = '4ms'\n[[links.override]]\nbetween = ['n1', 'n7']\nrtt = '40ms'\n";
    let topology = with_matrix(rules, "# source\nms,Z1,Z2,Z3\nZ1,,10,20\n").unwrap();
    let origin = |from, to| topology.origin(&node(from), &node(to), Parameter::Delay).map(|place| place.to_string());
    assert_eq!(origin("n1", "n4").as_deref(), Some("a/m.csv:3"));
    assert_eq!(origin("n4", "n1").as_deref(), Some("a/m.csv:3"));
    assert_eq!(origin("n1", "n7").as_deref(), Some("a/test.toml:12"));
    assert_eq!(origin("n4", "n7").as_deref(), Some("a/test.toml:9"));
    assert_eq!(origin("n4", "n5"), None);
    assert_eq!(topology.origin(&node("n1"), &node("n4"), Parameter::Loss), None);
}

#[test]
fn a_topology_needs_exactly_the_files_that_it_names() {
    let text = "name = 't'\nnodes = 'n[1-2]'\n[links]\nmatrix = 'm.csv'\n";
    let error = |files: &[(&str, &str)]| Topology::parse(with_files(text, files)).unwrap_err().to_string();
    assert_eq!(error(&[]), "a/test.toml:4:10: cannot read `m.csv`: it is not attached to the topology");
    let matrix = ("m.csv", "ms,n1\nn2,1\n");
    assert_eq!(
        error(&[matrix, ("x.csv", "")]),
        "a/test.toml:1:1: the topology does not name the attached file `x.csv`"
    );
    let huge = "#".repeat(MAX_FILE_BYTES + 1);
    assert_eq!(error(&[("m.csv", &huge)]), "a/test.toml:4:10: cannot read `m.csv`: it is larger than 4 MiB");

    let topology = Topology::parse(with_files(text, &[matrix])).unwrap();
    let json = serde_json::to_value(&topology).unwrap();
    assert_eq!(serde_json::from_value::<Topology>(json).unwrap(), topology);
}

#[test]
fn each_attached_file_is_read_once() {
    let text = "name = 't'\nnodes = 'n[1-2]'\n[links]\nmatrix = 'm.csv'\n";
    let mut asked = Vec::new();
    let loaded = Topology::load(source(text), |name| {
        asked.push(name.to_owned());
        Ok("ms,n1\nn2,1\n".to_owned())
    });
    assert_eq!(delay(&loaded.unwrap(), "n1", "n2"), "500us");
    assert_eq!(asked, ["m.csv"]);
    let missing = Topology::load(source(text), |_| Err("no such file".to_owned())).unwrap_err();
    assert_eq!(missing.to_string(), "test.toml:4:10: cannot read `m.csv`: no such file");
}

#[test]
fn the_names_of_files_in_an_invalid_topology_are_found() {
    let references = |text| source(text).references().into_iter().collect::<Vec<_>>();
    let text = "nonsense = 1\n[links]\nmatrix = 'm.csv'\ndefault = { jitter = 5, distribution = { table = 'd.dist' } }\n\
                inter-zone.slot.distribution.table = 's.dist'\n\
                [[links.override]]\nrtt = ''\ndistribution = { table = 'd.dist' }\n";
    assert_eq!(references(text), ["d.dist", "m.csv", "s.dist"]);
    assert_eq!(references("matrix = 'm.csv'\n[links]\nmatrix = 5"), Vec::<String>::new());
    assert_eq!(references("[links"), Vec::<String>::new());
}

#[test]
fn a_distribution_table_is_identified_by_its_values() {
    let text = "name = 't'\nnodes = 'n[1-2]'\n[links.default]\ndelay = '9ms'\njitter = '5ms'\n\
                distribution = { table = 'd/wan.dist' }\n\
                [[links.override]]\nfrom = 'n2'\nto = 'n1'\njitter = '4ms'\ndistribution.table = 'same.dist'\n";
    let files = [("d/wan.dist", "-1 0 1\n"), ("same.dist", "# the same\n-1 0\n1")];
    let topology = Topology::parse(with_files(text, &files)).unwrap();
    let distribution =
        |from, to| topology.link(&node(from), &node(to)).and_then(|link| link.jitter).map(|it| it.distribution);
    let Some(Distribution::Table(id)) = distribution("n1", "n2") else { panic!("a table") };
    assert_eq!(distribution("n2", "n1"), Some(Distribution::Table(id)));
    assert_eq!(
        topology.tables().iter().map(|(id, values)| (*id, values.to_vec())).collect::<Vec<_>>(),
        [(id, vec![-1, 0, 1])]
    );
}

#[test]
fn mistakes_of_one_kind_in_a_matrix_are_one_error() {
    let csv = (0..200).fold("ms,Z1\n".to_owned(), |csv, _| csv + "x,-1\n");
    let rejected = with_matrix("", &csv).unwrap_err().to_string();
    let expected = "a/m.csv:2:1: no zone or node is called `x` (and 199 more like this)\n\
                    a/m.csv:2:3: `-1ms` is not between 0ms and 120s (and 199 more like this)";
    assert_eq!(rejected, expected);
}

/// A file of 12 nodes with most keys of the language. It is valid unless an override covers no link.
fn any_topology() -> impl Strategy<Value = String> {
    let end = prop_oneof![
        Just("*".to_owned()),
        (1..4_u8).prop_map(|zone| format!("Z{zone}")),
        (1..12_u8).prop_map(|node| format!("n{node}")),
        (1..6_u8, 6..12_u8).prop_map(|(first, last)| format!("n[{first}-{last}]")),
    ];
    let more = proptest::sample::select(vec![
        "",
        "jitter = '0ms'\nreorder = '0%'",
        "loss = { probability = '1%', correlation = '25%', ecn = true }",
        "loss.gemodel = { p = '1%', r = '10%' }\nloss.ecn = false",
        "loss.state.p13 = '1%'\ncorrupt = '1%'\nduplicate = { probability = '1%', correlation = '25%' }",
        "rate = '1gbit'\nrate-per = 'zone'\npacket-overhead = '20B'\ncell-size = '48B'\ncell-overhead = '-5B'",
        "slot = { delay = '10ms', jitter = '2ms', distribution = 'normal', packets = 32, bytes = '64kB' }",
        "slot = { min = '8ms', max = '12ms' }\nlimit = 5_000\nseed = 0x2a",
    ]);
    let rule = (end.clone(), end, any::<bool>(), 0..9_u8, more).prop_map(|(a, b, both_ways, delay, more)| {
        let ends = if both_ways { format!("between = ['{a}', '{b}']") } else { format!("from = '{a}'\nto = ['{b}']") };
        format!("[[links.override]]\n{ends}\ndelay = '{delay}ms'\n{more}\n")
    });
    (1..3_u8, 4..8_u8, 8..11_u8, proptest::collection::vec(rule, 0..6)).prop_map(|(a, b, c, rules)| {
        let (second, third, fourth) = (a + 1, b + 1, c + 1);
        format!(
            "name = 'any'\nnodes = ['n[1-{a}]']\n[zones]\nZ1 = 'n[{second}-{b}]'\nZ2 = ['n[{third}-{c}]']\n\
             Z3 = 'n[{fourth}-12]'\n[links]\ndefault.delay = '11ms'\nintra-zone.delay = '12ms'\n\
             inter-zone.rtt = '26ms'\n{}",
            rules.concat()
        )
    })
}

/// A link without contradictory parameters and without distribution tables.
fn any_link() -> impl Strategy<Value = Link> {
    let parts = || prop_oneof![0..100_u32, any::<u32>(), Just(1 << 31)];
    let probability = move || parts().prop_map(Probability::from_parts);
    let chance = move || {
        let parts = (1..=u32::MAX, prop_oneof![Just(0), 0..u32::MAX]);
        parts.prop_map(|(probability, correlation)| Chance {
            probability: Probability::from_parts(probability),
            correlation: Probability::from_parts(correlation),
        })
    };
    // Two exits of a state, with a sum of at most 100 %.
    let ways = move || {
        (1..=u32::MAX, any::<u32>())
            .prop_map(|(one, other)| [one, other.min(u32::MAX - one)].map(Probability::from_parts))
    };
    let model = prop_oneof![
        chance().prop_map(LossModel::Random),
        (ways(), ways(), probability()).prop_map(|([p13, p14], [p31, p32], p23)| LossModel::State {
            p13,
            p31,
            p32,
            p23,
            p14
        }),
        (1..=u32::MAX, probability(), 1..=u32::MAX, probability()).prop_map(|(p, r, bad, good)| {
            LossModel::GeModel { p: Probability::from_parts(p), r, bad: Probability::from_parts(bad), good }
        }),
    ];
    let loss = (model, any::<bool>()).prop_map(|(model, ecn)| Loss { model, ecn });
    let short = || (1..=Jitter::MAX.as_nanos()).prop_map(Delay::from_nanos);
    let named =
        || proptest::sample::select(vec![Distribution::Normal, Distribution::Pareto, Distribution::ParetoNormal]);
    let distribution = prop_oneof![Just(Distribution::Uniform), named()];
    let correlation = prop_oneof![Just(0), 0..u32::MAX].prop_map(Probability::from_parts);
    let jitter = (short(), correlation, distribution).prop_map(|(amount, correlation, distribution)| Jitter {
        amount,
        correlation,
        distribution,
    });
    let reorder = prop_oneof![
        Just(Reorder::Jitter),
        (chance(), prop_oneof![Just(1), 1..=u32::MAX])
            .prop_map(|(chance, gap)| Reorder::Undelayed(Undelayed { chance, gap })),
    ];
    let rate = (1..=BitRate::MAX.bytes_per_second(), -34..100_i32, 0..100_i32, -200..100_i32, any::<bool>()).prop_map(
        |(bytes, overhead, size, cell, per_zone)| {
            let rate = Rate {
                bits: BitRate::from_bytes_per_second(bytes),
                packet_overhead: Bytes::new(overhead),
                cell_size: Bytes::new(size),
                cell_overhead: Bytes::new(if size == 0 { 0 } else { cell.max(1 - size) }),
            };
            (rate, if per_zone { RatePer::Zone } else { RatePer::Node })
        },
    );
    let spacing = prop_oneof![
        (short(), short()).prop_map(|(a, b)| Spacing::Range { min: a.min(b), max: a.max(b) }),
        short().prop_map(|time| Spacing::Range { min: time, max: time }),
        (short(), short(), named()).prop_map(|(a, b, distribution)| Spacing::Distributed {
            delay: a.max(b),
            jitter: a.min(b),
            distribution
        }),
    ];
    let slot = (spacing, prop_oneof![Just(0), 0..=i32::MAX.unsigned_abs()], prop_oneof![Just(0), 0..=i32::MAX]);
    let slot = slot.prop_map(|(spacing, packets, bytes)| Slot { spacing, packets, bytes: Bytes::new(bytes) });
    let first = (0..=Delay::MAX.as_nanos(), proptest::option::of(jitter), proptest::option::of(loss));
    let second = (proptest::option::of(chance()), proptest::option::of(chance()), proptest::option::of(reorder));
    let third = (proptest::option::of(rate), proptest::option::of(slot));
    let fourth = (proptest::option::of(1..=u32::MAX), proptest::option::of(0..=i64::MAX.unsigned_abs()));
    (first, second, third, fourth).prop_filter_map(
        "incoherent",
        |((delay, jitter, loss), (corrupt, duplicate, reorder), (rate, slot), (limit, seed))| {
            let link = Link {
                delay: Delay::from_nanos(delay),
                jitter,
                loss,
                corrupt,
                duplicate,
                reorder,
                rate: rate.map(|(rate, _)| rate),
                rate_per: rate.map(|(_, per)| per).unwrap_or_default(),
                slot,
                limit,
                seed,
            };
            (incoherence(&link).is_none() && link != Link::default()).then_some(link)
        },
    )
}

/// The cells of a matrix of zones Z1 to Z3 and the node gw, in tenths of a millisecond.
fn any_matrix() -> impl Strategy<Value = Vec<Vec<Option<u32>>>> {
    let cell = prop_oneof![Just(None), (0..3_000_u32).prop_map(Some)];
    proptest::collection::vec(proptest::collection::vec(cell, 4), 4)
}

proptest! {
    #[test]
    fn every_cell_of_a_matrix_becomes_a_link(
        mut cells in any_matrix(), order in Just(["Z1", "Z2", "Z3", "gw"]).prop_shuffle(), has_units: bool,
    ) {
        let node_of = |end: &str| node(match end { "Z1" => "n1", "Z2" => "n5", "Z3" => "n9", gw => gw });
        let zones = HIERARCHICAL.replace("[zones]", "nodes = 'gw'\n[zones]");
        let mut csv = format!("{},{}\n", if has_units { "" } else { "ms" }, order.join(","));
        for (row, from) in cells.iter_mut().zip(order) {
            csv += from;
            for (cell, to) in row.iter_mut().zip(order) {
                *cell = cell.filter(|_| from != to);
                let unit = if has_units { "ms" } else { "" };
                csv += &cell.map_or(",".to_owned(), |tenths| format!(",\"{}.{}{unit}\"", tenths / 10, tenths % 10));
            }
            csv += "\r\n";
        }
        let text = zones + "matrix = 'm.csv'\nmatrix-is = 'delay'\n";
        let parsed = Topology::parse(with_files(&text, &[("m.csv", &csv)]));
        if cells.iter().flatten().all(Option::is_none) {
            prop_assert!(parsed.is_err());
            return Ok(());
        }
        let topology = parsed.unwrap();
        for (row, from) in cells.iter().zip(order) {
            for (cell, to) in row.iter().zip(order).filter(|&(_, to)| to != from) {
                let link = topology.link(&node_of(from), &node_of(to)).expect("a link");
                let general = if from == "gw" || to == "gw" { 0 } else { 75_000_000 };
                let expected = cell.map_or(general, |tenths| u64::from(tenths) * 100_000);
                prop_assert_eq!(link.delay, Delay::from_nanos(expected));
                let mut links = topology.links_from(&node_of(from));
                prop_assert!(links.any(|(node, there)| *node == node_of(to) && there == link));
            }
        }
    }

    #[test]
    fn no_matrix_makes_the_parser_panic(
        csv in "(ms)?[,Zn1-9\"]{0,20}\n([Zn][1-4],[0-9.,\"mus -]{0,12}\n){0,4}|\\PC{0,60}", is_delay: bool,
    ) {
        let rules = if is_delay { "matrix-is = 'delay'\n" } else { "" };
        match with_matrix(rules, &csv) {
            Ok(topology) => prop_assert!(topology.nodes().iter().all(|node| topology.links_from(node).count() == 8)),
            Err(rejected) => {
                prop_assert!(!rejected.problems().is_empty());
                prop_assert!(rejected.render(false, 60).ends_with('\n'));
            }
        }
    }

    #[test]
    fn links_from_agrees_with_link(text in any_topology()) {
        // The file is invalid if an override covers no link.
        let Ok(topology) = Topology::parse(source(&text)) else { return Ok(()) };
        for from in topology.nodes() {
            let together: Vec<_> = topology.links_from(from).collect();
            let one_by_one: Vec<_> =
                topology.nodes().iter().filter_map(|to| Some((to, topology.link(from, to)?))).collect();
            prop_assert_eq!(together, one_by_one);
        }
        prop_assert_eq!(topology.links_from(&node("stranger")).count(), 0);
    }

    #[test]
    fn the_notation_of_a_link_reads_back(link in any_link()) {
        let text = format!("name = 't'\nnodes = 'n[1-2]'\n[links]\ndefault = {{ {} }}\n", link.notation());
        let read = Topology::parse(source(&text));
        let read = read.map_err(|rejected| TestCaseError::fail(rejected.render(false, 100)))?;
        prop_assert_eq!(read.link(&node("n1"), &node("n2")), Some(link), "{}", text);
        let json = serde_json::to_string(&link).unwrap();
        prop_assert_eq!(serde_json::from_str::<Link>(&json).unwrap(), link);
    }

    #[test]
    fn no_value_of_a_parameter_makes_the_parser_panic(
        key in "rtt|jitter|loss|loss\\.(state|gemodel)(\\.p13)?|reorder|rate|packet-overhead|slot(\\.min)?|limit|seed",
        value in "-?[0-9]{1,30}(\\.[0-9]{1,9})?|true|nan|inf|\"\\PC{0,12}\"|\"-?[0-9.]{1,25}(ms|%|B|gbit|s)\"|\\{\\}|\\[\\]|0x[0-9a-f]{1,20}",
    ) {
        let text = format!("name = 't'\nnodes = 'n[1-2]'\n[links.default]\n{key} = {value}\n");
        if let Err(rejected) = Topology::parse(source(&text)) {
            prop_assert!(rejected.problems().iter().all(|problem| text.get(problem.span.clone()).is_some()));
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,60}|[a-z\\[\\]={}'\".,0-9\n -]{0,80}") {
        if let Err(rejected) = Topology::parse(source(&text)) {
            prop_assert!(!rejected.problems().is_empty());
            prop_assert!(rejected.render(false, 60).ends_with('\n'));
        }
    }

    #[test]
    fn no_damaged_file_makes_the_parser_panic(
        text in any_topology(),
        damage in proptest::collection::vec((any::<Index>(), 0..4_usize, "[\\[\\]{}='\",.\n\r\t*é0-9a-z-]{0,3}"), 1..4),
    ) {
        let mut text: Vec<char> = text.chars().collect();
        for (place, removed, inserted) in damage {
            let start = place.index(text.len());
            let end = (start + removed).min(text.len());
            text.splice(start..end, inserted.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(rejected) = Topology::parse(source(&text)) {
            prop_assert!(rejected.problems().iter().all(|problem| text.get(problem.span.clone()).is_some()));
            prop_assert!(rejected.render(true, 60).ends_with('\n'));
        }
    }
}
