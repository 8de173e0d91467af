//! Generates an `OpenAPI` 3.1 document of the agent's HTTP API from the types of [`crate::wire`].
//!
//! The document is committed as `docs/api/openapi.json`. This module is a part of the tests, not of the program.

use std::{collections::BTreeMap, fs, path::Path};

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{
    agent::tests::examples::exchanges,
    wire::{ApiError, Call, ErrorCode, describe_calls},
};

/// Collects the schemas and examples of all calls.
pub(crate) struct Describer {
    generator: SchemaGenerator,
    paths: Map<String, Value>,
    examples: BTreeMap<&'static str, (Value, Value)>,
}

impl Describer {
    fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.meta_schema = None;
            settings.definitions_path = "/components/schemas".into();
        });
        Self { generator: settings.for_deserialize().into_generator(), paths: Map::new(), examples: exchanges() }
    }

    /// Adds a call with its example.
    pub(crate) fn describe<C: Call + JsonSchema>(&mut self)
    where
        C::Reply: JsonSchema,
    {
        let Some((request, reply)) = self.examples.get(C::PATH) else {
            panic!("src/agent/tests/examples.rs has no exchange of {}", C::PATH);
        };
        let summary = description(&C::json_schema(&mut SchemaGenerator::default()));
        let reply_is = description(&C::Reply::json_schema(&mut SchemaGenerator::default()));
        let call = json!({
            "operationId": C::schema_name(),
            "summary": summary,
            "requestBody": { "required": true, "content": content(&self.generator.subschema_for::<C>(), request) },
            "responses": {
                "200": { "description": reply_is, "content": content(&self.generator.subschema_for::<C::Reply>(), reply) },
                "default": { "$ref": "#/components/responses/Error" },
            },
        });
        self.paths.insert(C::PATH.to_owned(), json!({ "post": call }));
    }

    fn document(mut self) -> Value {
        let error = self.generator.subschema_for::<ApiError>();
        let codes = ErrorCode::json_schema(&mut SchemaGenerator::default());
        let schemas = self.generator.take_definitions(true);
        let example = json!({ "code": "conflict", "message": "another change is being made on this node" });
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "netemctl agent",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "The HTTP API of an agent. Every call is a POST of a JSON document, which may be \
                    compressed (Content-Encoding: gzip); docs/orchestrating.md \
                    describes sequences of calls. Generated from the program's own types.",
                "license": { "name": "MIT OR Apache-2.0" },
            },
            "paths": self.paths,
            "components": {
                "schemas": schemas,
                "responses": {
                    "Error": {
                        "description": format!("The call failed. {}.", statuses(&codes).join(", ")),
                        "content": content(&error, &example),
                    },
                },
            },
        })
    }
}

fn content(schema: &Schema, example: &Value) -> Value {
    json!({ "application/json": { "schema": schema, "example": example } })
}

/// The first paragraph of a type's documentation.
fn description(schema: &Schema) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split("\n\n").next().unwrap_or_default().replace('\n', " ")
}

/// The HTTP status and the name of each error code, as in `403 refused`.
fn statuses(codes: &Schema) -> Vec<String> {
    let codes = codes.get("oneOf").and_then(Value::as_array).expect("the schema of the codes is an enum");
    let status = |code: &Value| {
        let code: ErrorCode = serde_json::from_value(code["const"].clone()).expect("the program has this code");
        format!("{} {}", code.status(), serde_json::to_value(code).expect("a code is JSON").as_str().expect("a string"))
    };
    codes.iter().map(status).collect()
}

/// Asserts that a committed file is equal to the generated document. Writes the file first if `NETEMCTL_BLESS` is set.
#[track_caller]
pub(crate) fn assert_is_committed(path: &str, document: &Value) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let mut document = document.clone();
    for_readers_of_json(&mut document);
    let text = serde_json::to_string_pretty(&document).expect("the document is JSON") + "\n";
    if std::env::var_os("NETEMCTL_BLESS").is_some() {
        fs::write(&file, &text).expect("the file can be written");
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == text,
        "{path} is outdated; write it and check the difference: NETEMCTL_BLESS=1 cargo test --lib is_committed"
    );
}

/// Changes descriptions from Rust's documentation for readers of JSON: no line breaks, no links, `null` instead of
/// `None`.
fn for_readers_of_json(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(text) if key == "description" => {
                        let paragraphs = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
                        let joined = paragraphs.collect::<Vec<_>>().join("\n\n");
                        *text = joined.replace("[`", "`").replace("`]", "`").replace("`None`", "`null`");
                    }
                    value => for_readers_of_json(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(for_readers_of_json),
        _ => {}
    }
}

#[test]
fn docs_orchestrating_has_every_call_and_every_error_code() {
    let text = include_str!("../docs/orchestrating.md");
    let mut describer = Describer::new();
    describe_calls(&mut describer);
    for path in describer.paths.keys() {
        assert!(text.contains(&format!("\n| `{path}` | ")), "{path} is not in docs/orchestrating.md");
    }
    for code in statuses(&ErrorCode::json_schema(&mut SchemaGenerator::default())) {
        let (status, code) = code.split_once(' ').expect("an entry is a status and a code");
        assert!(text.contains(&format!("\n| `{code}` | {status} | ")), "{code} is not in docs/orchestrating.md");
    }
}

#[test]
fn the_schema_of_the_agents_api_is_committed() {
    let mut describer = Describer::new();
    describe_calls(&mut describer);
    assert_is_committed("docs/api/openapi.json", &describer.document());
}

/// The unknown key shows that a request's schema does not accept everything.
#[test]
fn the_examples_match_their_schemas_and_requests_with_an_unknown_key_do_not() {
    let mut describer = Describer::new();
    describe_calls(&mut describer);
    let document = describer.document();
    let paths = document["paths"].as_object().expect("the document has paths");
    assert!(paths.len() >= 7, "{paths:?}");
    for (path, call) in paths {
        let request = &call["post"]["requestBody"]["content"]["application/json"];
        let reply = &call["post"]["responses"]["200"]["content"]["application/json"];
        for part in [request, reply] {
            let mut schema = part["schema"].clone();
            schema["components"] = document["components"].clone();
            let validator = jsonschema::draft202012::new(&schema).expect("the schema is a valid JSON Schema");
            let mut example = part["example"].clone();
            assert!(
                validator.is_valid(&example),
                "{path}: {:?}",
                validator.validate(&example).map_err(|e| e.to_string())
            );
            if part == request {
                example["no-such-key"] = json!(1);
                assert!(!validator.is_valid(&example), "the request schema of {path} accepts an unknown key");
            }
        }
    }
}
