//! Tests that `docs/api/cli.schema.json` is the JSON Schema of the documents that commands print with `--json`.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    Asked, agent,
    apply::Changed,
    check::Answer,
    doctor::Diagnosis,
    inventory::{InventoryCheck, InventoryInit, InventoryShow},
    lab,
    new::Template,
    output::Report,
    pki,
    plan::FleetPlan,
    show::Shown,
    status::Fleetwide,
    verify::Verified,
};
use crate::openapi::assert_is_committed;

/// Every command that prints a document, with the schema of the document.
///
/// All commands that change nodes print the same document.
fn commands(generator: &mut SchemaGenerator) -> Map<String, Value> {
    fn of<T: JsonSchema>(generator: &mut SchemaGenerator, commands: &[&str]) -> Vec<(String, Value)> {
        let schema = generator.subschema_for::<T>().to_value();
        commands.iter().map(|command| ((*command).to_owned(), schema.clone())).collect()
    }
    let changing = ["apply", "set", "unset", "partition", "heal", "clear"];
    [
        of::<Template>(generator, &["new"]),
        of::<Answer>(generator, &["check"]),
        of::<Shown<'_>>(generator, &["show"]),
        of::<Diagnosis<'_>>(generator, &["doctor"]),
        of::<FleetPlan<'_>>(generator, &["plan"]),
        of::<Changed<'_>>(generator, &changing),
        of::<Verified<'_>>(generator, &["verify"]),
        of::<Fleetwide>(generator, &["status"]),
        of::<InventoryInit<'_>>(generator, &["inventory init"]),
        of::<InventoryCheck>(generator, &["inventory check"]),
        of::<InventoryShow<'_>>(generator, &["inventory show"]),
        of::<pki::Made<'_>>(generator, &["pki init"]),
        of::<pki::Issued>(generator, &["pki issue"]),
        of::<pki::Shown>(generator, &["pki show"]),
        of::<lab::Up<'_>>(generator, &["lab up"]),
        of::<lab::LabStatus>(generator, &["lab status"]),
        of::<lab::Programs>(generator, &["lab ps"]),
        of::<lab::Executed>(generator, &["lab exec"]),
        of::<lab::Restarted>(generator, &["lab restart"]),
        of::<lab::Down>(generator, &["lab down"]),
        of::<agent::Checked<'_>>(generator, &["agent --check"]),
        of::<Asked>(generator, &["--help", "--version"]),
        of::<Report<'_>>(generator, &["a command that failed"]),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn the_schema_of_the_documents_is_committed() {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let commands = commands(&mut generator);
    assert_is_committed(
        "docs/api/cli.schema.json",
        &json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "What netemctl prints with --json",
            "description": "One document for each command, in `commands`; generated from the program's own types.",
            "commands": commands,
            "$defs": generator.take_definitions(true),
        }),
    );
}
