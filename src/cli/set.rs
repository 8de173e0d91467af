//! `netemctl set`: changes parameters of links between nodes.

use std::time::Duration;

use super::{Context, Exit, Failure, apply, scope::ScopeOptions, timing::time_limit};
use crate::{
    fleet::Edit,
    plan::OverlayRequest,
    topology::{LinkChange, Source},
};

/// Change link parameters between nodes
///
/// The parameters replace those of the topology, or of the bare LAN, on links between FROM and TO. Other parameters and
/// other links stay the same. The kernel changes links in place: no packet in flight is lost.
///
/// Later changes win, parameter by parameter. A change with the name of an earlier change replaces it and restarts its
/// time limit. Changes stay on their nodes when another topology is applied. Repeating the latest change without a time
/// limit changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  netemctl set Z1 Z3 loss=5% jitter=10ms      both directions
  netemctl set Z1 Z3 delay=200ms --one-way    packets from Z1 to Z3 only
  netemctl set n1 '*' rate=100mbit --for 30s  all links of n1, for 30 s
  netemctl set Z1,n4 'n[7-9]' rtt=300ms --name storm
  netemctl set Z1 Z3 loss.gemodel.p=1% loss.gemodel.r=10%
  netemctl set Z1 Z3 loss=0%                  no loss
  netemctl unset                              remove all changes

Each agent ends a change with --for by its own clock. An agent that was killed
ends it when it starts again.")]
pub(super) struct Set {
    /// Zones, nodes or hostlists separated by commas; * for all
    from: String,

    /// Other end of the links; same forms as FROM
    to: String,

    /// Link parameter as in a topology file, such as loss=5%
    ///
    /// A key may have dots, as in reorder.gap=5. Whole numbers, true, false, and values that begin with {, [ or a
    /// double quote are TOML. Every other value is text.
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = parameter)]
    parameters: Vec<String>,

    /// Change packets from FROM to TO only
    #[arg(long)]
    one_way: bool,

    /// End the change after this time: 500ms, 30s, 5m, 1h
    #[arg(long = "for", value_name = "TIME", value_parser = time_limit)]
    lasts: Option<Duration>,

    /// Name for unset [default: such as Z1:Z3:jitter,loss]
    #[arg(long)]
    name: Option<String>,

    #[command(flatten, next_help_heading = "Fleet")]
    scope: ScopeOptions,
}

impl Set {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let change = LinkChange::parse(Source::new(Source::COMMAND_LINE, self.parameters.concat()), !self.one_way);
        // The parsed text is made from the command line, so an error in the text is a usage error.
        let change = change.map_err(|rejected| Failure { exit: Exit::Usage, ..rejected.into() })?;
        let Self { from, to, one_way, lasts, name, scope, .. } = self;
        let request = OverlayRequest { name, from, to, both_ways: !one_way, change, lasts };
        apply::change(context, &scope, Edit::default(), false, |wanted, inventory| {
            wanted.with_overlay(request.clone(), inventory)
        })
    }
}

/// A parameter from the command line, as a line of TOML.
fn parameter(text: &str) -> Result<String, String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, as in loss=5%")?;
    let is_key = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if !key.split('.').all(is_key) {
        return Err(format!("`{key}` is no parameter; write KEY=VALUE, as in loss=5%"));
    }
    let stands_for_itself = value.starts_with(['{', '[', '"']) || matches!(value, "true" | "false");
    let value = match value.parse::<i64>() {
        Ok(number) => number.to_string(),
        Err(_) if stands_for_itself => value.to_owned(),
        // A JSON string is also a TOML string. Every text can be written as a JSON string.
        Err(_) => serde_json::to_string(value).unwrap_or_default(),
    };
    Ok(format!("{key} = {value}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_number_a_boolean_toml_or_text() {
        let line = |text: &str| parameter(text).unwrap().trim_end().to_owned();
        assert_eq!(line("loss=5%"), r#"loss = "5%""#);
        assert_eq!(line("reorder.gap=5"), "reorder.gap = 5");
        assert_eq!(line("seed=007"), "seed = 7");
        assert_eq!(line("loss.ecn=true"), "loss.ecn = true");
        assert_eq!(line(r#"loss={ probability = "1%" }"#), r#"loss = { probability = "1%" }"#);
        assert_eq!(line(r#"distribution="normal""#), r#"distribution = "normal""#);
        assert_eq!(line("distribution=a=b\\c\nd"), r#"distribution = "a=b\\c\nd""#);
        assert_eq!(line("delay="), r#"delay = """#);
        for bad in ["loss", "=5%", "a b=1", "a..b=1", "[x]\ny=1", "\"a\"=1"] {
            assert!(parameter(bad).is_err(), "{bad}");
        }
    }
}
