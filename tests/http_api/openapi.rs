//! `etc/openapi.json` describes the server as it is: its pages, and parameters that it reads.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::fuzz::bodies;
use crate::client::{ask, get, post};
use crate::double::start_default_server;

const DOCUMENT: &str = include_str!("../../etc/openapi.json");

fn document() -> Value {
    serde_json::from_str(DOCUMENT).expect("JSON")
}

/// The properties of the schema with this reference, those of the schemas that it is made of among them.
fn properties(document: &Value, reference: &str) -> Map<String, Value> {
    let schema = document.pointer(reference.trim_start_matches('#')).expect("a schema");
    let parts = schema["allOf"].as_array().cloned().unwrap_or_else(|| vec![schema.clone()]);
    let of = |part: &Value| match part["$ref"].as_str() {
        Some(reference) => properties(document, reference),
        None => part["properties"].as_object().cloned().unwrap_or_default(),
    };
    parts.iter().flat_map(of).collect()
}

#[tokio::test]
async fn the_document_has_every_page_with_its_methods() {
    let server = start_default_server().await;
    let index = get(server.address, "/").await.text();
    let mut served = BTreeSet::new();
    for line in index.lines().filter(|line| line.starts_with("  ")) {
        let (methods, rest) = line.split_once(" /").expect("methods and a path");
        let path = format!("/{}", rest.split(' ').next().unwrap_or_default());
        let methods = methods.split(',').map(|method| method.trim().to_lowercase()).filter(|method| method != "head");
        served.extend(methods.map(|method| (path.clone(), method)));
    }
    let mut described = BTreeSet::new();
    for (path, page) in document()["paths"].as_object().unwrap() {
        described.extend(page.as_object().unwrap().keys().map(|method| (path.clone(), method.clone())));
    }
    assert_eq!(described, served);
}

#[tokio::test]
async fn every_parameter_in_the_document_is_read() {
    let (server, document) = (start_default_server().await, document());
    let valid = |path: &str| bodies::all().into_iter().find(|(tried, _)| *tried == path).expect("a body").1;
    let mut tried = 0;
    for (path, page) in document["paths"].as_object().unwrap() {
        let schema = page.pointer("/post/requestBody/content/application~1json/schema/$ref");
        let Some(reference) = schema.and_then(Value::as_str) else { continue };
        for name in properties(&document, reference).keys() {
            let mut body = valid(path);
            // Nothing takes a list of lists of lists.
            body[name] = json!([[[]]]);
            let answer = ask(server.address, &post(path, body.to_string().as_bytes())).await;
            assert!(answer.status == 400 && answer.text().contains(name), "{path} {name}: {}", answer.text());
            tried += 1;
        }
    }
    assert!(tried > 150, "{tried}");
}
