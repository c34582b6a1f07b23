//! OpenAI's Responses: whole and streamed answers, and the responses that the server keeps.

use std::net::SocketAddr;
use std::time::Duration;

use engine::generate::Failure;
use gateway::http::Settings;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::client::{Answer, ask, connect, get, plain, post, read_until};
use crate::double::{CONTEXT_TOKENS, MODEL, chat_tokens, expected, greedy, start_default_server, start_server};

async fn respond(address: SocketAddr, body: &Value) -> Answer {
    ask(address, &post("/v1/responses", body.to_string().as_bytes())).await
}

/// The events of a streamed answer, after a check of their names and numbers.
fn events(answer: &Answer) -> Vec<Value> {
    let text = answer.text();
    let parse = |(number, event): (usize, &str)| {
        let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!((&data["type"], &data["sequence_number"]), (&json!(name), &json!(number)), "{text}");
        data
    };
    text.split_terminator("\n\n").enumerate().map(parse).collect()
}

/// The text of a response's only message.
fn text_of(response: &Value) -> &str {
    assert_eq!(response["output"].as_array().unwrap().len(), 1, "{response}");
    response["output"][0]["content"][0]["text"].as_str().unwrap()
}

fn error_of(answer: &Answer) -> (u16, Value, Value) {
    let error = &answer.json()["error"];
    (answer.status, error["code"].clone(), error["param"].clone())
}

#[tokio::test]
async fn a_text_is_answered_with_a_message_and_counted() {
    let server = start_default_server().await;
    let body = json!({
        "model": MODEL, "input": "go", "instructions": "be brief", "temperature": 0, "max_output_tokens": 12
    });
    let answer = respond(server.address, &body).await;
    let response = answer.json();
    let prompt = chat_tokens(&[("system", "be brief"), ("user", "go")]);
    let (text, tokens, stopped) = expected(&prompt, &greedy(), 12);
    assert_eq!(answer.status, 200, "{response}");
    assert_eq!(text_of(&response), text);
    assert_eq!((&response["object"], &response["model"]), (&json!("response"), &json!(MODEL)));
    assert!(response["id"].as_str().unwrap().starts_with("resp_"));
    let (status, details) =
        if stopped { ("completed", Value::Null) } else { ("incomplete", json!({"reason": "max_output_tokens"})) };
    assert_eq!((&response["status"], &response["incomplete_details"]), (&json!(status), &details));
    assert_eq!(response["output"][0]["status"], status);
    assert_eq!((&response["instructions"], &response["error"]), (&json!("be brief"), &Value::Null));
    assert_eq!(response["usage"]["input_tokens"], prompt.len());
    assert_eq!(response["usage"]["input_tokens_details"]["cached_tokens"], prompt.len() / 2);
    assert_eq!(response["usage"]["output_tokens"], tokens);
    assert_eq!(response["timings"]["predicted_n"], tokens);
}

#[tokio::test]
async fn a_streamed_response_is_the_whole_one_in_events() {
    let server = start_default_server().await;
    let mut body = json!({"input": "go", "temperature": 0, "max_output_tokens": 12});
    let whole = respond(server.address, &body).await.json();
    body["stream"] = json!(true);
    let answer = respond(server.address, &body).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let events = events(&answer);
    let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let begin =
        ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"];
    let end = ["response.output_text.done", "response.content_part.done", "response.output_item.done"];
    let last = format!("response.{}", whole["status"].as_str().unwrap());
    let (body, deltas) = (&types[..types.len() - 1], &types[4..types.len() - 4]);
    assert_eq!((&body[..4], &body[body.len() - 3..]), (&begin[..], &end[..]));
    assert!(deltas.iter().all(|name| *name == "response.output_text.delta"), "{types:?}");
    assert_eq!(types.last(), Some(&last.as_str()));
    let text: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(text, text_of(&whole));
    let response = &events.last().unwrap()["response"];
    assert_eq!((text_of(response), &response["usage"]), (text_of(&whole), &whole["usage"]));
    assert_eq!(events[0]["response"]["id"], response["id"]);
}

#[tokio::test]
async fn a_conversation_goes_on_from_a_kept_response() {
    let server = start_default_server().await;
    let body = json!({"input": "go", "instructions": "be brief", "temperature": 0, "max_output_tokens": 8});
    let first = respond(server.address, &body).await.json();
    let body = json!({
        "input": [{"role": "user", "content": "again"}], "previous_response_id": first["id"], "temperature": 0,
        "max_output_tokens": 8, "stream": true
    });
    let second = events(&respond(server.address, &body).await).pop().unwrap()["response"].clone();
    // The instructions of the earlier response are not carried over.
    let history = [("user", "go"), ("assistant", text_of(&first)), ("user", "again")];
    assert_eq!(text_of(&second), expected(&chat_tokens(&history), &greedy(), 8).0);
    assert_eq!(second["previous_response_id"], first["id"]);
    let third = json!({
        "input": [{"role": "user", "content": "go"}, {"type": "item_reference", "id": first["output"][0]["id"]},
                  {"role": "user", "content": "again"}],
        "temperature": 0, "max_output_tokens": 8
    });
    let third = respond(server.address, &third).await.json();
    assert_eq!(text_of(&third), text_of(&second), "the reference is the earlier answer");
}

#[tokio::test]
async fn a_kept_response_is_read_listed_and_deleted() {
    let server = start_default_server().await;
    let first = respond(server.address, &json!({"input": "go", "max_output_tokens": 4})).await.json();
    let id = first["id"].as_str().unwrap();
    let page = format!("/v1/responses/{id}");
    assert_eq!(get(server.address, &page).await.json(), first);
    let second = json!({"input": "more", "previous_response_id": id, "max_output_tokens": 4});
    let second = respond(server.address, &second).await.json();
    let items = format!("/v1/responses/{}/input_items", second["id"].as_str().unwrap());
    let list = get(server.address, &items).await.json();
    let texts: Vec<_> =
        list["data"].as_array().unwrap().iter().map(|item| item["content"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["more", text_of(&first), "go"]);
    let oldest = get(server.address, &format!("{items}?order=asc&limit=1")).await.json();
    assert_eq!((&oldest["data"][0]["content"][0]["text"], &oldest["has_more"]), (&json!("go"), &json!(true)));
    assert_eq!(error_of(&get(server.address, &format!("{items}?limit=0")).await).0, 400);
    let cancel = ask(server.address, &post(&format!("{page}/cancel"), b"")).await;
    assert_eq!(cancel.status, 400);
    assert!(cancel.text().contains("Cannot cancel a synchronous response"), "{}", cancel.text());
    assert_eq!(error_of(&get(server.address, &format!("{page}?stream=true")).await).2, "stream");
    let deleted = ask(server.address, &plain("DELETE", &page)).await;
    assert_eq!(deleted.json(), json!({"id": id, "object": "response", "deleted": true}));
    assert_eq!(get(server.address, &page).await.status, 404);
    let next = json!({"input": "more", "previous_response_id": second["id"], "max_output_tokens": 4});
    assert_eq!(respond(server.address, &next).await.status, 200, "a later response keeps its conversation");
}

#[tokio::test]
async fn what_is_not_kept_is_not_found() {
    let server = start_default_server().await;
    let body = json!({"input": "go", "store": false, "max_output_tokens": 4});
    let refused = respond(server.address, &body).await.json();
    assert_eq!(refused["store"], false);
    for id in [refused["id"].as_str().unwrap(), "resp_1", "%20"] {
        let page = format!("/v1/responses/{id}");
        for request in [
            plain("GET", &page),
            plain("DELETE", &page),
            plain("GET", &format!("{page}/input_items")),
            post(&format!("{page}/cancel"), b""),
        ] {
            let answer = ask(server.address, &request).await;
            assert_eq!(error_of(&answer), (404, json!("not_found"), Value::Null), "{id}");
        }
        let next = json!({"input": "more", "previous_response_id": id});
        let expected = (400, json!("previous_response_not_found"), json!("previous_response_id"));
        assert_eq!(error_of(&respond(server.address, &next).await), expected);
    }
    let reference = json!({"input": [{"type": "item_reference", "id": "msg_1"}]});
    let expected = (404, json!("item_not_found"), json!("input[0]"));
    assert_eq!(error_of(&respond(server.address, &reference).await), expected);
    let put = ask(server.address, &plain("PUT", "/v1/responses/resp_1")).await;
    assert_eq!((put.status, put.header("allow")), (405, Some("GET, HEAD, DELETE")));
}

#[tokio::test]
async fn the_bounds_of_the_settings_hold() {
    let settings = Settings { stored_responses_max: 2, ..Settings::default() };
    let server = start_server(settings, 1000).await;
    let mut pages = Vec::new();
    for _ in 0..3 {
        let response = respond(server.address, &json!({"input": "go", "max_output_tokens": 2})).await.json();
        pages.push(format!("/v1/responses/{}", response["id"].as_str().unwrap()));
    }
    let mut statuses = Vec::new();
    for page in &pages {
        statuses.push(get(server.address, page).await.status);
    }
    assert_eq!(statuses, [404, 200, 200]);
    let settings = Settings { stored_age_max: Duration::ZERO, ..Settings::default() };
    let server = start_server(settings, 1000).await;
    let response = respond(server.address, &json!({"input": "go", "max_output_tokens": 2})).await.json();
    let page = format!("/v1/responses/{}", response["id"].as_str().unwrap());
    assert_eq!(get(server.address, &page).await.status, 404);
}

#[tokio::test]
async fn results_of_tools_are_part_of_the_conversation() {
    let server = start_default_server().await;
    let function = json!({"type": "function", "name": "weather", "parameters": {"type": "object"}});
    let body = json!({
        "input": [
            {"role": "user", "content": "weather?"},
            {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "sun"}
        ],
        "tools": [function, {"type": "web_search", "external_web_access": false}], "temperature": 0,
        "max_output_tokens": 6
    });
    let response = respond(server.address, &body).await.json();
    let prompt = chat_tokens(&[("user", "weather?"), ("assistant", ""), ("tool", "sun")]);
    assert_eq!(text_of(&response), expected(&prompt, &greedy(), 6).0);
    let complete = json!({
        "type": "function", "name": "weather", "description": null, "parameters": {"type": "object"}, "strict": false
    });
    assert_eq!(response["tools"], json!([complete]), "hosted tools are left out, and the answer shows it");
}

#[tokio::test]
async fn the_oldest_turns_are_left_out_on_request_only() {
    let server = start_default_server().await;
    let long = "x".repeat(CONTEXT_TOKENS as usize / 2);
    let mut body = json!({
        "instructions": "be brief",
        "input": [{"role": "user", "content": long}, {"role": "assistant", "content": long},
                  {"role": "user", "content": "go"}],
        "temperature": 0, "max_output_tokens": 6
    });
    let expected_error = (400, json!("context_length_exceeded"), json!("input"));
    assert_eq!(error_of(&respond(server.address, &body).await), expected_error);
    body["truncation"] = json!("auto");
    let response = respond(server.address, &body).await.json();
    let prompt = chat_tokens(&[("system", "be brief"), ("user", "go")]);
    assert_eq!(text_of(&response), expected(&prompt, &greedy(), 6).0);
}

#[tokio::test]
async fn a_failure_in_the_middle_of_a_stream_is_two_events() {
    let server = start_default_server().await;
    let failure = Failure::Stage { stage: "two".to_owned(), reason: "out of memory".to_owned() };
    *server.pipeline.failure.lock().unwrap() = Some((2, failure));
    let mut body = json!({"input": "go", "temperature": 0, "stream": true});
    let events = events(&respond(server.address, &body).await);
    let [.., error, failed] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("stage_failed")));
    assert_eq!(failed["type"], "response.failed");
    assert_eq!(failed["response"]["error"]["code"], "server_error");
    let id = failed["response"]["id"].as_str().unwrap();
    assert_eq!(get(server.address, &format!("/v1/responses/{id}")).await.status, 404);
    body["stream"] = json!(false);
    assert_eq!(error_of(&respond(server.address, &body).await).0, 500);
}

#[tokio::test]
async fn a_silent_stream_has_pings_and_a_numbered_keepalive() {
    let server = start_server(Settings { ping_period: Duration::from_millis(5), ..Settings::default() }, 0).await;
    let body = json!({"input": "go", "stream": true, "max_output_tokens": 1});
    let mut stream = connect(server.address).await;
    stream.write_all(&post("/v1/responses", body.to_string().as_bytes())).await.unwrap();
    let keepalive = "event: keepalive\ndata: {\"type\":\"keepalive\",\"sequence_number\":2}";
    let text = read_until(&mut stream, keepalive).await;
    assert!(text.contains("event: response.in_progress") && text.contains(": ping"), "{text}");
}

#[tokio::test]
async fn the_log_probabilities_of_a_text_are_included_on_request() {
    let server = start_default_server().await;
    let body = json!({
        "input": "go", "temperature": 0, "max_output_tokens": 4, "include": ["message.output_text.logprobs"]
    });
    let response = respond(server.address, &body).await.json();
    let logprobs = response["output"][0]["content"][0]["logprobs"].as_array().unwrap();
    let tokens: String = logprobs.iter().map(|logprob| logprob["token"].as_str().unwrap()).collect();
    assert_eq!(tokens, text_of(&response));
}

#[tokio::test]
async fn what_the_server_does_not_do_is_refused_by_name() {
    let server = start_default_server().await;
    for (param, value) in [
        ("background", json!(true)),
        ("conversation", json!("conv_1")),
        ("messages", json!([])),
        ("max_tokens", json!(5)),
        ("tools[0].type", json!([{"type": "web_search"}])),
        ("tools[0].type", json!([{"type": "custom", "name": "apply_patch"}])),
        ("text.format.type", json!({"format": {"type": "xml"}})),
        ("input", json!([])),
        ("include[0]", json!(["everything"])),
        ("stream_options", json!({"include_obfuscation": false})),
    ] {
        let key = param.split(['[', '.']).next().unwrap();
        let mut body = json!({"input": "go"});
        body[key] = value;
        let (status, _, found) = error_of(&respond(server.address, &body).await);
        assert_eq!((status, found), (400, json!(param)), "{body}");
    }
    let other = respond(server.address, &json!({"input": "go", "model": "gpt-5"})).await;
    assert_eq!(error_of(&other), (404, json!("model_not_found"), json!("model")));
}
