//! `docs/openapi.yaml` holds together, tells of what is there and of nothing else, and is compared with what
//! tests see: the comparison refuses whatever differs.
//!
//! That the interface is as the document says is tried by every other test, whose exchanges
//! [`interface`](crate::support::interface) compares with it.

use std::collections::BTreeSet;

use serde_json::Value;
use tidings::frame::Reset;

use crate::docs::{BYES, RESETS, cells, fences, plain, read, section};
use crate::support::interface::document::{Part, target};
use crate::support::interface::{BLOCKS, DOCUMENT};

mod comparison;
mod seldom;

/// Calls this with every part of the document, as it stands there.
fn walk(part: &Part<'_>, visit: &mut impl FnMut(&Part<'_>)) {
    visit(part);
    let names: Vec<String> = match part.value {
        Value::Object(members) => members.keys().cloned().collect(),
        Value::Array(items) => (0..items.len()).map(|n| n.to_string()).collect(),
        _ => Vec::new(),
    };
    for name in names {
        walk(&part.child(&name).expect("it was found there"), visit);
    }
}

/// Every text of a member of this name, anywhere in a part.
fn texts(part: &Part<'_>, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(part, &mut |part| {
        if let Some(text) = part.value.get(name).and_then(Value::as_str) {
            found.insert(text.to_owned());
        }
    });
    found
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_referred_to() {
    let references = texts(&DOCUMENT.root(), "$ref");
    for reference in &references {
        DOCUMENT.at(target(reference));
    }
    for kind in ["headers", "parameters", "responses", "schemas"] {
        for (name, part) in DOCUMENT.at(&format!("/components/{kind}")).each() {
            let used = references.contains(&format!("#/components/{kind}/{name}"));
            assert!(used, "nothing refers to the {kind} {name}");
            if kind == "schemas" {
                // It can be compiled.
                part.validator();
            }
        }
    }
}

#[test]
fn every_example_is_one() {
    let mut count = 0;
    walk(&DOCUMENT.root(), &mut |part| {
        let mut check = |schema: &Part<'_>, example: &Value| {
            count += 1;
            let valid = schema.check(example);
            valid.unwrap_or_else(|fault| panic!("{}: {example} {fault}", part.pointer));
        };
        let named = part.child("examples");
        if let Some(schema) = part.child("schema") {
            if let Some(example) = part.child("example") {
                check(&schema, example.value);
            }
            for (_, example) in named.map(|examples| examples.each()).unwrap_or_default() {
                check(&schema, example.child("value").expect("a value").value);
            }
        } else if let Some(Value::Array(examples)) = named.map(|examples| examples.value) {
            examples.iter().for_each(|example| check(part, example));
        }
    });
    assert!(count > 15, "only {count} examples were found");

    let streams = DOCUMENT.at("/components/responses/Stream/content/text~1event-stream/examples");
    let mut count = 0;
    for (_, example) in streams.each() {
        for block in example.text("value").split_inclusive("\n\n") {
            count += 1;
            BLOCKS.check(block).expect("a block");
        }
    }
    assert!(count > 5, "only {count} blocks were found");
}

#[test]
fn the_examples_of_the_protocol_are_such_as_the_document_describes() {
    let page = read("docs/protocol.md");
    let (mut blocks, mut answers) = (0, 0);
    for (language, text) in fences(&page) {
        if language == "text" {
            let paragraphs = text.trim().split("\n\n");
            for block in paragraphs.filter(|text| text.contains("data: ")) {
                blocks += 1;
                let checked = BLOCKS.check(&format!("{block}\n\n"));
                checked.unwrap_or_else(|fault| panic!("{block}: {fault}"));
            }
        }
        if language == "json" {
            let value: Value = serde_json::from_str(&text).expect("JSON");
            let schema = match value {
                _ if value.get("cursor").is_some() => "SyncPage",
                _ if value.get("status").is_some() => "Problem",
                _ => continue,
            };
            answers += 1;
            let schema = DOCUMENT.at(&format!("/components/schemas/{schema}"));
            schema.check(&value).expect(&text);
        }
    }
    assert!(blocks > 8, "only {blocks} blocks were found");
    assert_eq!(answers, 3);
}

#[test]
fn paths_and_methods_are_those_that_are_routed() {
    // A path of clients stands in one line with its methods, one of operators at the head of its branch.
    let mut routed = BTreeSet::new();
    let mut allowed = BTreeSet::new();
    for line in read("src/http/route.rs").lines() {
        let quoted: Vec<&str> = line.trim().split('"').collect();
        if let ["", path, " => ", methods, ","] = quoted[..] {
            routed.insert((path.to_owned(), words(methods)));
            allowed.insert(methods.to_owned());
        }
    }
    assert_eq!(routed.len(), 3, "{routed:?}");
    for line in read("src/http/ops.rs").lines() {
        if let Some((path, _)) = line
            .trim()
            .strip_prefix('"')
            .and_then(|rest| rest.split_once("\" =>"))
        {
            routed.insert((path.to_owned(), words("GET, HEAD")));
        }
    }
    assert_eq!(routed.len(), 6, "{routed:?}");

    const METHODS: [&str; 8] = [
        "get", "head", "post", "options", "put", "patch", "delete", "trace",
    ];
    let mut described = BTreeSet::new();
    for (path, item) in DOCUMENT.at("/paths").each() {
        let methods = item.each().into_iter().map(|(name, _)| name);
        let methods = methods.filter(|name| METHODS.contains(&&**name));
        described.insert((path, methods.map(|name| name.to_uppercase()).collect()));
    }
    assert_eq!(described, routed);
    let methods = DOCUMENT.at("/components/schemas/Methods/enum").value;
    let methods: BTreeSet<String> = serde_json::from_value(methods.clone()).expect("texts");
    assert_eq!(methods, allowed);
}

fn words(list: &str) -> BTreeSet<String> {
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn problems_are_those_that_the_gateway_has_each_with_its_status() {
    let table = section(&read("docs/protocol.md"), "Problems");
    let rows = table.lines().filter_map(cells);
    let rows = rows.filter(|row| row[0].starts_with('`') && !row[0].contains("urn:"));
    let told: BTreeSet<(String, String)> =
        rows.map(|row| (plain(&row[0]), row[1].clone())).collect();
    let mut described = BTreeSet::new();
    for (name, answer) in DOCUMENT.at("/components/responses").each() {
        let Some(problem) = answer
            .child("content")
            .and_then(|content| content.child("application/problem+json"))
        else {
            continue;
        };
        let schema = problem.child("schema").expect("a schema").pointer;
        let status = DOCUMENT.at(&format!("{schema}/properties/status/const"));
        let types = DOCUMENT.at(&format!("{schema}/properties/type/enum"));
        for (_, kind) in types.each() {
            let kind = kind.value.as_str().expect("a text");
            let kind = kind.strip_prefix("urn:tidings:problem:").expect("ours");
            described.insert((kind.to_owned(), status.value.to_string()));
        }
        // It is the answer of just this status, wherever it is one.
        walk(&DOCUMENT.root(), &mut |part| {
            let reference = format!("#/components/responses/{name}");
            if part.value.get("$ref") == Some(&Value::String(reference)) {
                let at = part.pointer.rsplit('/').next();
                assert_eq!(at, Some(&*status.value.to_string()), "{}", part.pointer);
            }
        });
    }
    // That table and the gateway's source are compared elsewhere.
    assert_eq!(described, told);
}

#[test]
fn reasons_are_those_that_the_gateway_has() {
    let described = |pointer: &str| -> BTreeSet<Option<String>> {
        let reasons = DOCUMENT.at(pointer).value.clone();
        serde_json::from_value(reasons).expect("texts, and perhaps null")
    };
    let reset = |reset: &Reset| Some(reset.as_str().to_owned());
    let resets: BTreeSet<_> = RESETS.iter().map(reset).collect();
    let byes = BYES.iter().map(|bye| Some(bye.as_str().to_owned()));
    let schemas = "/components/schemas";
    assert_eq!(
        described(&format!("{schemas}/Reset/properties/reason/enum")),
        resets
    );
    assert_eq!(
        described(&format!("{schemas}/Bye/properties/reason/enum")),
        byes.collect()
    );
    // A sync pages through what is too much for a stream, and says so when there was no reset.
    let mut of_sync = resets;
    of_sync.remove(&reset(&Reset::TooFar));
    of_sync.insert(None);
    assert_eq!(
        described(&format!("{schemas}/SyncPage/properties/reset/enum")),
        of_sync
    );
}

#[test]
fn the_document_is_of_this_release() {
    let version = DOCUMENT.at("/info/version").value;
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
}
