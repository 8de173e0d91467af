//! `netemctl set`: lay a change over links while they are in force.

use std::time::Duration;

use super::{Context, Exit, Failure, apply, scope::ScopeOptions, timing::time_limit};
use crate::{
    fleet::Edit,
    plan::OverlayRequest,
    topology::{LinkChange, Source},
};

/// Change links while they are in force: lay parameters over what the topology, or the bare LAN, has between FROM and TO
///
/// Only the links named change, in place: nothing in flight is lost, and what a change does not name stays as it is.
/// Changes lie one on top of the other, the later wins, parameter by parameter; one of the same name takes the earlier
/// one's place, and its time starts anew. They stay when another topology is applied, on the nodes that were named.
/// Repeating the change that is on top, if it has no time limit, changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  netemctl set Z1 Z3 loss=5% jitter=10ms      both ways
  netemctl set Z1 Z3 delay=200ms --one-way    packets from Z1 to Z3 only
  netemctl set n1 '*' rate=100mbit --for 30s  n1 with everybody, for 30 s
  netemctl set Z1,n4 'n[7-9]' rtt=300ms --name storm
  netemctl set Z1 Z3 loss.gemodel.p=1% loss.gemodel.r=10%
  netemctl set Z1 Z3 loss=0%                  no loss, whatever lies below
  netemctl unset                              everything as the topology has it

Each agent takes a change with a time limit off by itself when its time is up,
whether or not anybody is there to tell it to, and if it is killed, when it is
started again (netemctl agent --help).")]
pub(super) struct Set {
    /// A zone, a node, a hostlist, several of them separated by commas, or * for every node
    from: String,

    /// The other end, said in the same way
    to: String,

    /// A link's parameter as in a topology file, such as loss=5% or reorder.gap=5
    ///
    /// A key may have dots. A whole number, true and false stand for themselves, and so does what begins with {, [ or
    /// a double quote, as TOML; anything else is text, as if it were quoted.
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = parameter)]
    parameters: Vec<Parameter>,

    /// Change packets from FROM to TO only, and not those that come back
    #[arg(long)]
    one_way: bool,

    /// Take it off after this time: 500ms, 30s, 5m, 1h
    #[arg(long = "for", value_name = "TIME", value_parser = time_limit)]
    lasts: Option<Duration>,

    /// What to call it when it is taken off [default: the ends and the parameters, such as Z1:Z3:jitter,loss]
    #[arg(long)]
    name: Option<String>,

    #[command(flatten, next_help_heading = "Fleet")]
    scope: ScopeOptions,
}

/// One argument: a key, and its value as TOML.
#[derive(Clone, Debug)]
struct Parameter {
    key: String,
    value: String,
}

impl Set {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let lines = self.parameters.iter().map(|Parameter { key, value }| format!("{key} = {value}\n"));
        let change = LinkChange::parse(Source::new("<set>", lines.collect::<String>()), !self.one_way);
        // It is no file that is wrong but the command line, which the text shown is made of.
        let change = change.map_err(|rejected| Failure { exit: Exit::Usage, ..rejected.into() })?;
        let Self { from, to, one_way, lasts, name, scope, .. } = self;
        let wish = OverlayRequest { name, from, to, both_ways: !one_way, change, lasts };
        apply::change(context, &scope, Edit::default(), |wanted, inventory| {
            wanted.with_overlay(wish.clone(), inventory)
        })
    }
}

fn parameter(text: &str) -> Result<Parameter, String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, as in loss=5%")?;
    let is_key = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if !key.split('.').all(is_key) {
        return Err(format!("`{key}` is no parameter; write KEY=VALUE, as in loss=5%"));
    }
    let stands_for_itself = value.starts_with(['{', '[', '"']) || matches!(value, "true" | "false");
    let value = match value.parse::<i64>() {
        Ok(number) => number.to_string(),
        Err(_) if stands_for_itself => value.to_owned(),
        // A JSON string is a TOML string as well, and a string can always be written as one.
        Err(_) => serde_json::to_string(value).unwrap_or_default(),
    };
    Ok(Parameter { key: key.to_owned(), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_number_a_boolean_toml_or_text() {
        let line = |text: &str| parameter(text).map(|Parameter { key, value }| format!("{key} = {value}")).unwrap();
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
