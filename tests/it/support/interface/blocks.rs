//! Blocks of a stream: which there are, and what the JSON in them is.

use std::sync::Arc;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use super::document::{Part, check, target};
use crate::support::client::parse;

/// Everything that a block may be.
pub(crate) struct Blocks(Vec<Kind>);

struct Kind {
    name: String,
    /// The fields.
    block: Arc<Validator>,
    /// The JSON in `data`.
    data: Arc<Validator>,
}

impl Blocks {
    /// The blocks of a schema that lists them as alternatives.
    pub(crate) fn of(schema: &Part<'_>) -> Blocks {
        let kinds = schema.follow(target(schema.text("$ref"))).each_of("anyOf");
        let kinds = kinds.into_iter().map(|(_, kind)| Kind {
            name: kind.pointer.rsplit('/').next().unwrap_or("").to_owned(),
            block: kind.validator(),
            data: kind
                .follow(&format!("{}/properties/data/contentSchema", kind.pointer))
                .validator(),
        });
        Blocks(kinds.collect())
    }

    /// Compares a block as it came with all of them; what is wrong with it as each.
    pub(crate) fn check(&self, text: &str) -> Result<(), String> {
        let block = parse(text);
        let mut fields = Map::new();
        let texts = [("id", &block.id), ("event", &block.event)];
        for (name, value) in texts.into_iter().chain([("data", &block.data)]) {
            if let Some(value) = value {
                fields.insert(name.to_owned(), Value::String(value.clone()));
            }
        }
        if let Some(retry) = block.retry {
            fields.insert("retry".to_owned(), json!(retry));
        }
        let fields = Value::Object(fields);
        let data = block.data.as_deref().unwrap_or("");
        let data: Value = serde_json::from_str(data).map_err(|error| format!("data: {error}"))?;
        let mut faults = Vec::new();
        for kind in &self.0 {
            let outcome = check(&kind.block, &fields).and_then(|()| check(&kind.data, &data));
            match outcome {
                Ok(()) => return Ok(()),
                Err(fault) => faults.push(format!("no {}: {fault}", kind.name)),
            }
        }
        Err(faults.join("\n"))
    }
}
