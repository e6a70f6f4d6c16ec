//! The plan's JSON schema (draft 2020-12), for editors: it comes from the same tables that plans are read by.

use serde_json::{Map, Value, json};

use super::kind::{Field, Kind, LONGEST, MAXIMUM_FILES, MAXIMUM_WORDS, Section, Times};
use super::table::SECTIONS;

/// The schema.
#[must_use]
pub fn schema() -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for section in SECTIONS {
        let table = object(section);
        let (described, needed) = match section.times {
            Times::Once => (table, true),
            Times::Maybe => (table, false),
            Times::Many { least, most } => {
                let array = json!({
                    "type": "array",
                    "description": section.about,
                    "minItems": least,
                    "maxItems": most,
                    "items": table,
                });
                (array, least > 0)
            }
        };
        properties.insert(section.name.to_owned(), described);
        if needed {
            required.push(section.name);
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A plan of a keyferry station",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "required": required,
    })
}

fn object(section: &Section) -> Value {
    let mut properties = Map::new();
    let mut conditions = Vec::new();
    let mut required = Vec::new();
    for field in section.fields {
        properties.insert(field.name.to_owned(), value(field));
        match field.only {
            None if field.needed => required.push(field.name),
            None => {}
            Some(only) => {
                let then = if field.needed {
                    json!({ "required": [field.name] })
                } else {
                    json!({})
                };
                conditions.push(json!({
                    "if": {
                        "properties": { only.field: { "enum": only.values } },
                        "required": [only.field],
                    },
                    "then": then,
                    "else": { "properties": { field.name: false } },
                }));
            }
        }
    }
    let mut object = json!({
        "type": "object",
        "description": section.about,
        "additionalProperties": false,
        "properties": properties,
        "required": required,
    });
    if !conditions.is_empty() {
        object["allOf"] = conditions.into();
    }
    object
}

fn value(field: &Field) -> Value {
    let mut value = match field.kind {
        Kind::Text { most } => json!({ "type": "string", "minLength": 1, "maxLength": most }),
        Kind::Checked { example, .. } => {
            json!({ "type": "string", "minLength": 1, "maxLength": LONGEST, "examples": [example] })
        }
        Kind::Path => json!({ "type": "string", "minLength": 1, "maxLength": LONGEST }),
        Kind::Paths => json!({
            "type": "array",
            "minItems": 1,
            "maxItems": MAXIMUM_FILES,
            "uniqueItems": true,
            "items": { "type": "string", "minLength": 1, "maxLength": LONGEST },
        }),
        Kind::Words => json!({
            "type": "array",
            "minItems": 1,
            "maxItems": MAXIMUM_WORDS,
            "items": { "type": "string", "minLength": 1, "maxLength": LONGEST },
        }),
        Kind::Choice(names) => json!({ "type": "string", "enum": names() }),
        Kind::Choices(names) => json!({
            "type": "array",
            "minItems": 1,
            "uniqueItems": true,
            "items": { "type": "string", "enum": names() },
        }),
        Kind::Number { least, most } => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Kind::Flag => json!({ "type": "boolean" }),
    };
    value["description"] = field.about.into();
    value
}
