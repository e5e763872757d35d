//! The table of routes as an OpenAPI 3.1 document. It is kept in `docs/openapi.json`; a test compares.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::problem::Problem;
use super::routes::{Route, table};

/// The document.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let problem = generator.subschema_for::<Problem>();
    let mut paths = Map::new();
    for route in table() {
        let takes = route.takes.map(|shape| shape(&mut generator));
        let gives = route.gives.2.map(|shape| shape(&mut generator));
        let operation = operation(&route, takes, gives);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    let mut schemas = generator.take_definitions(true);
    schemas.sort_keys();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Squall",
            "version": "1",
            "description": "The controller's interface. Every request but those of health and readiness shows a token; what \
                alters something is in the audit log.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "responses": {
                "problem": {
                    "description": "It was refused (RFC 9457).",
                    "content": { "application/problem+json": { "schema": problem } },
                },
            },
        },
    })
}

fn operation(route: &Route, takes: Option<schemars::Schema>, gives: Option<schemars::Schema>) -> Value {
    let (status, kind, _) = route.gives;
    let parameter = |place: &str, name: &str, meaning: &str| {
        json!({
            "name": name, "in": place, "required": place == "path", "description": meaning,
            "schema": { "type": "string" },
        })
    };
    let parts = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = parts.map(|name| parameter("path", name, "Which one.")).collect();
    parameters.extend(route.query.iter().map(|(name, meaning)| parameter("query", name, meaning)));
    if route.method == axum::http::Method::POST {
        let meaning = "A request of this caller with the same key is done once, within a day.";
        parameters.push(parameter("header", "Idempotency-Key", meaning));
    }
    let mut answer = json!({ "description": "It was done." });
    if !kind.is_empty() {
        answer["content"][kind] = gives.map_or_else(|| json!({}), |schema| json!({ "schema": schema }));
    }
    let mut operation = json!({
        "summary": route.summary,
        "parameters": parameters,
        "responses": { status.as_str(): answer, "default": { "$ref": "#/components/responses/problem" } },
    });
    if let Some(schema) = takes {
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    if let Some(least) = route.least {
        operation["security"] = json!([{ "token": [] }]);
        operation["x-role"] = json!(least.name());
    }
    operation
}
