//! An OpenAPI document: its parts, its references, and its schemas, each compiled once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use jsonschema::Validator;
use saphyr::{LoadableYamlNode, ScalarOwned, YamlOwned};
use serde_json::{Map, Value, json};

/// A whole document.
pub(crate) struct Document {
    root: Value,
    /// By the pointer of the schema.
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Document {
    /// Reads a document in YAML.
    pub(crate) fn read(text: &str) -> Document {
        let mut documents = YamlOwned::load_from_str(text).expect("YAML");
        assert_eq!(documents.len(), 1, "one document");
        Document::of(to_json(documents.remove(0)))
    }

    /// The same from JSON.
    pub(crate) fn of(root: Value) -> Document {
        let validators = Mutex::default();
        Document { root, validators }
    }

    /// The whole of it.
    pub(crate) fn root(&self) -> Part<'_> {
        let (document, pointer, value) = (self, String::new(), &self.root);
        Part {
            document,
            pointer,
            value,
        }
    }

    /// The part at a JSON pointer, which must exist.
    pub(crate) fn at(&self, pointer: &str) -> Part<'_> {
        self.find(pointer)
            .unwrap_or_else(|| panic!("the document has no {pointer}"))
    }

    /// The part at a JSON pointer.
    pub(crate) fn find(&self, pointer: &str) -> Option<Part<'_>> {
        Some(Part {
            document: self,
            pointer: pointer.to_owned(),
            value: self.root.pointer(pointer)?,
        })
    }

    fn validator(&self, pointer: &str) -> Arc<Validator> {
        let mut validators = self.validators.lock().expect("no compiling panics");
        let known = validators.get(pointer);
        if let Some(validator) = known {
            return validator.clone();
        }
        // References of a schema lead to the document's components, so these stand beside it.
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "allOf": [self.root.pointer(pointer)],
            "components": self.root["components"],
        });
        let built = jsonschema::options()
            .should_validate_formats(true)
            .build(&schema);
        let validator = Arc::new(built.unwrap_or_else(|error| panic!("{pointer}: {error}")));
        validators.insert(pointer.to_owned(), validator.clone());
        validator
    }
}

/// A part of a document, and where it stands.
#[derive(Clone)]
pub(crate) struct Part<'a> {
    document: &'a Document,
    pub(crate) pointer: String,
    pub(crate) value: &'a Value,
}

impl<'a> Part<'a> {
    /// A member or an item, as it stands there.
    pub(crate) fn child(&self, name: &str) -> Option<Part<'a>> {
        let value = match self.value {
            Value::Object(members) => members.get(name)?,
            Value::Array(items) => items.get(name.parse::<usize>().ok()?)?,
            _ => return None,
        };
        let step = name.replace('~', "~0").replace('/', "~1");
        Some(Part {
            document: self.document,
            pointer: format!("{}/{step}", self.pointer),
            value,
        })
    }

    /// The same, or what it refers to. A schema is left as it stands, since there a reference may have
    /// neighbours that count.
    pub(crate) fn get(&self, name: &str) -> Option<Part<'a>> {
        let child = self.child(name)?;
        let reference = child.value.get("$ref").and_then(Value::as_str);
        match reference {
            Some(_) if name == "schema" => Some(child),
            Some(reference) => Some(self.document.at(target(reference))),
            None => Some(child),
        }
    }

    /// The part of the same document at a JSON pointer, which must exist.
    pub(crate) fn follow(&self, pointer: &str) -> Part<'a> {
        self.document.at(pointer)
    }

    /// All members, or items by their numbers, each as [`Part::get`] gives it.
    pub(crate) fn each(&self) -> Vec<(String, Part<'a>)> {
        let names: Vec<String> = match self.value {
            Value::Object(members) => members.keys().cloned().collect(),
            Value::Array(items) => (0..items.len()).map(|n| n.to_string()).collect(),
            _ => Vec::new(),
        };
        let parts = names.into_iter().map(|name| {
            let part = self.get(&name).expect("it was found there");
            (name, part)
        });
        parts.collect()
    }

    /// The members of a member, or nothing where there is none.
    pub(crate) fn each_of(&self, name: &str) -> Vec<(String, Part<'a>)> {
        self.get(name).map(|part| part.each()).unwrap_or_default()
    }

    /// The text of a member, or nothing.
    pub(crate) fn text(&self, name: &str) -> &'a str {
        self.value.get(name).and_then(Value::as_str).unwrap_or("")
    }

    /// Whether a member is there and true.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.value.get(name) == Some(&Value::Bool(true))
    }

    /// What this schema says of values.
    pub(crate) fn validator(&self) -> Arc<Validator> {
        self.document.validator(&self.pointer)
    }

    /// Compares a value with this schema.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        check(&self.validator(), value)
    }

    /// Compares a text with this schema, which may take it for a number.
    pub(crate) fn check_text(&self, text: &str) -> Result<(), String> {
        let refused = self.check(&Value::String(text.to_owned()));
        let number = text.parse::<i64>().map(|number| self.check(&json!(number)));
        match number {
            Ok(Ok(())) => Ok(()),
            _ => refused,
        }
    }
}

/// Compares a value with a schema; what is wrong, and where.
pub(crate) fn check(validator: &Validator, value: &Value) -> Result<(), String> {
    if validator.is_valid(value) {
        return Ok(());
    }
    let errors = validator.iter_errors(value).map(|error| {
        let text: String = error.to_string().chars().take(300).collect();
        format!("at {:?}: {text}", error.instance_path().to_string())
    });
    Err(errors.collect::<Vec<_>>().join("; "))
}

/// The pointer of a reference within the document; there are no others.
pub(crate) fn target(reference: &str) -> &str {
    let pointer = reference.strip_prefix('#');
    pointer.unwrap_or_else(|| panic!("{reference} leads out of the document"))
}

fn to_json(yaml: YamlOwned) -> Value {
    match yaml {
        YamlOwned::Value(ScalarOwned::Null) => Value::Null,
        YamlOwned::Value(ScalarOwned::Boolean(truth)) => json!(truth),
        YamlOwned::Value(ScalarOwned::Integer(number)) => json!(number),
        YamlOwned::Value(ScalarOwned::FloatingPoint(number)) => json!(number.into_inner()),
        YamlOwned::Value(ScalarOwned::String(text)) => Value::String(text),
        YamlOwned::Sequence(items) => items.into_iter().map(to_json).collect(),
        YamlOwned::Mapping(members) => {
            let members = members
                .into_iter()
                .map(|(name, value)| match to_json(name) {
                    Value::String(name) => (name, to_json(value)),
                    other => panic!("the name of a member is {other}"),
                });
            Value::Object(members.collect::<Map<_, _>>())
        }
        other => panic!("YAML that is no JSON: {other:?}"),
    }
}
