//! Embeddings over OpenAI's and Ollama's pages, and the refusal to rank.

use engine::generate::{Failure, Pooling, Rejection};
use gateway::http::Settings;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::client::{Answer, ask, connect, post};
use crate::double::{CONTEXT_TOKENS, DIMENSIONS, MODEL, RunningServer, embedding, start_default_server, start_server};

/// Sequences of one request at a time.
const IN_FLIGHT: usize = 32;

async fn send(server: &RunningServer, path: &str, body: &Value) -> Answer {
    ask(server.address, &post(path, body.to_string().as_bytes())).await
}

async fn embed(server: &RunningServer, body: &Value) -> Value {
    let answer = send(server, "/v1/embeddings", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// The embedding of `tokens`, cut to `dimensions` and divided by its length.
fn expected(tokens: &[u32], dimensions: usize) -> Vec<f32> {
    let vector = &embedding(tokens)[..dimensions];
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    vector.iter().map(|value| (f64::from(*value) / length) as f32).collect()
}

fn floats(vector: &Value) -> Vec<f32> {
    vector.as_array().expect("numbers").iter().map(|value| value.as_f64().expect("a number") as f32).collect()
}

/// The vectors of an answer, whose entries are in order.
fn vectors(answer: &Value) -> Vec<Vec<f32>> {
    let entries = answer["data"].as_array().expect("a list");
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!((&entry["object"], &entry["index"]), (&json!("embedding"), &json!(index)));
    }
    entries.iter().map(|entry| floats(&entry["embedding"])).collect()
}

#[tokio::test]
async fn each_form_of_input_gets_a_vector_of_length_1_for_each_of_its_texts() {
    let server = start_default_server().await;
    let inputs: [(Value, Vec<Vec<u32>>); 4] = [
        (json!("one text"), vec![bytes("one text")]),
        (json!(["one", "two", "one"]), vec![bytes("one"), bytes("two"), bytes("one")]),
        (json!([1, 2, 255]), vec![vec![1, 2, 255]]),
        (json!([[1, 2], [3]]), vec![vec![1, 2], vec![3]]),
    ];
    for (input, tokens) in inputs {
        let answer = embed(&server, &json!({"model": MODEL, "input": input, "user": "someone"})).await;
        let wanted: Vec<_> = tokens.iter().map(|tokens| expected(tokens, DIMENSIONS)).collect();
        assert_eq!(vectors(&answer), wanted, "{input}");
        let count: usize = tokens.iter().map(Vec::len).sum();
        assert_eq!(answer["usage"], json!({"prompt_tokens": count, "total_tokens": count}));
        assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!(MODEL)));
    }
    let requests = server.pipeline.requests.lock().unwrap();
    assert!(requests.iter().all(|request| request.pooling == Some(Pooling::Last) && request.tokens_max == 0));
}

#[tokio::test]
async fn base64_has_the_same_values_and_fewer_dimensions_are_cut_and_normalised_again() {
    let server = start_default_server().await;
    let answer = embed(&server, &json!({"input": "ab", "encoding_format": "base64"})).await;
    let text = answer["data"][0]["embedding"].as_str().unwrap();
    let decoded = decode_base64(text);
    let values: Vec<f32> = decoded.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    assert_eq!(values, expected(&bytes("ab"), DIMENSIONS));
    for dimensions in 1..=DIMENSIONS {
        let answer = embed(&server, &json!({"input": "ab", "dimensions": dimensions})).await;
        assert_eq!(vectors(&answer), [expected(&bytes("ab"), dimensions)]);
    }
}

fn decode_base64(text: &str) -> Vec<u8> {
    let digit = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("no base64: {other}"),
    };
    let group = |four: &[u8]| {
        let padding = four.iter().filter(|letter| **letter == b'=').count();
        let bits = four
            .iter()
            .fold(0_u32, |bits, letter| bits << 6 | if *letter == b'=' { 0 } else { u32::from(digit(*letter)) });
        bits.to_be_bytes()[1..4 - padding].to_vec()
    };
    text.as_bytes().chunks(4).flat_map(group).collect()
}

#[tokio::test]
async fn llama_servers_form_has_a_list_of_vectors_for_each_text() {
    let server = start_default_server().await;
    let inputs: [(Value, Vec<Vec<u32>>); 3] = [
        (json!({"content": "one text"}), vec![bytes("one text")]),
        (json!({"input": ["one", "two"], "embd_normalize": 2}), vec![bytes("one"), bytes("two")]),
        (json!({"content": [[1, 2], [3]], "model": MODEL}), vec![vec![1, 2], vec![3]]),
    ];
    for (body, tokens) in inputs {
        for path in ["/embedding", "/embeddings"] {
            let answer = send(&server, path, &body).await.json();
            let entries = answer.as_array().expect("a list");
            assert_eq!(entries.len(), tokens.len(), "{answer}");
            for (index, (entry, tokens)) in entries.iter().zip(&tokens).enumerate() {
                assert_eq!((&entry["index"], entry["embedding"].as_array().unwrap().len()), (&json!(index), 1));
                assert_eq!(floats(&entry["embedding"][0]), expected(tokens, DIMENSIONS), "{body}");
            }
        }
    }
    for (body, param) in [
        (json!({}), "content"),
        (json!({"content": []}), "content"),
        (json!({"input": ["a", ""]}), "input[1]"),
        (json!({"content": "a", "embd_normalize": -1}), "embd_normalize"),
        (json!({"content": "a", "input": "a"}), "content"),
    ] {
        let answer = send(&server, "/embedding", &body).await;
        assert_eq!((answer.status, answer.json()["error"]["param"].as_str()), (400, Some(param)), "{body}");
    }
}

#[tokio::test]
async fn many_inputs_go_a_bounded_number_at_a_time_and_stay_in_order() {
    let server = start_server(Settings::default(), 0).await;
    let texts: Vec<String> = (0..100).map(|index| format!("text {index}")).collect();
    let body = json!({"input": texts, "priority": -3});
    let request = embed(&server, &body);
    let watch = async {
        server.until(|counts| counts.started == IN_FLIGHT).await;
        server.pipeline.permits.add_permits(1);
        server.until(|counts| counts.finished == 1 && counts.started > IN_FLIGHT).await;
        assert_eq!(server.pipeline.counts.borrow().started, IN_FLIGHT + 1);
        server.pipeline.permits.add_permits(200);
    };
    let (answer, ()) = tokio::join!(request, watch);
    assert_eq!(vectors(&answer), texts.iter().map(|text| expected(&bytes(text), DIMENSIONS)).collect::<Vec<_>>());
    assert!(server.pipeline.requests.lock().unwrap().iter().all(|request| request.priority == -3));
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_embeddings() {
    let server = start_server(Settings::default(), 2).await;
    let mut stream = connect(server.address).await;
    let body = json!({"input": vec!["x"; 50]});
    stream.write_all(&post("/v1/embeddings", body.to_string().as_bytes())).await.unwrap();
    server.until(|counts| counts.started == IN_FLIGHT + 2).await;
    drop(stream);
    server.until(|counts| counts.cancelled == IN_FLIGHT).await;
    assert_eq!(server.pipeline.counts.borrow().started, IN_FLIGHT + 2);
}

#[tokio::test]
async fn a_prompt_as_long_as_the_context_is_embedded_and_a_longer_one_refused() {
    let server = start_default_server().await;
    let whole = vec![7; CONTEXT_TOKENS as usize];
    let answer = embed(&server, &json!({"input": [[1], whole]})).await;
    assert_eq!(vectors(&answer)[1], expected(&whole, DIMENSIONS));
    let longer = [whole, vec![7]].concat();
    let answer = send(&server, "/v1/embeddings", &json!({"input": [[1], longer]})).await;
    let error = answer.json()["error"].clone();
    assert_eq!(answer.status, 400);
    assert_eq!((&error["param"], &error["code"]), (&json!("input[1]"), &json!("context_length_exceeded")));
    assert_eq!(server.pipeline.counts.borrow().refused, 1);
}

#[tokio::test]
async fn wrong_values_are_refused_by_their_names() {
    let server = start_default_server().await;
    for (more, param) in [
        (json!({"input": null}), "input"),
        (json!({"input": 5}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": ""}), "input"),
        (json!({"input": ["a", ""]}), "input[1]"),
        (json!({"input": ["a", 5]}), "input[1]"),
        (json!({"input": [1, "a"]}), "input[1]"),
        (json!({"input": [1, 258]}), "input[1]"),
        (json!({"input": [[1], [2, -1]]}), "input[1][1]"),
        (json!({"input": [[1], []]}), "input[1]"),
        (json!({"input": vec!["a"; 2049]}), "input"),
        (json!({"encoding_format": "hex"}), "encoding_format"),
        (json!({"encoding_format": 5}), "encoding_format"),
        (json!({"dimensions": 0}), "dimensions"),
        (json!({"dimensions": DIMENSIONS + 1}), "dimensions"),
        (json!({"dimensions": "4"}), "dimensions"),
        (json!({"dimensions": 1.5}), "dimensions"),
        (json!({"user": 5}), "user"),
        (json!({"model": 5}), "model"),
        (json!({"priority": "high"}), "priority"),
        (json!({"truncate_prompt_tokens": 4}), "truncate_prompt_tokens"),
        (json!({"embd_normalize": 1}), "embd_normalize"),
        (json!({"messages": [{"role": "user", "content": "x"}]}), "messages"),
    ] {
        let mut body = json!({"input": "x"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = send(&server, "/v1/embeddings", &body).await;
        assert_eq!(answer.status, 400, "{more}: {}", answer.text());
        assert_eq!(answer.json()["error"]["param"], param, "{more}: {}", answer.text());
    }
    let other = send(&server, "/v1/embeddings", &json!({"input": "x", "model": "gpt-4"})).await;
    assert_eq!((other.status, &other.json()["error"]["code"]), (404, &json!("model_not_found")));
    assert_eq!(server.pipeline.counts.borrow().started, 0);
}

#[tokio::test]
async fn a_pipeline_that_rejects_or_fails_gives_its_status() {
    let server = start_default_server().await;
    *server.pipeline.rejection.lock().unwrap() = Some(Rejection::Busy { waiting: 64 });
    assert_eq!(send(&server, "/v1/embeddings", &json!({"input": ["a", "b"]})).await.status, 429);
    *server.pipeline.rejection.lock().unwrap() = None;
    *server.pipeline.failure.lock().unwrap() = Some((0, Failure::Deadline { limit_s: 9 }));
    let answer = send(&server, "/v1/embeddings", &json!({"input": ["a", "b"]})).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (504, &json!("deadline_exceeded")));
}

#[tokio::test]
async fn ollamas_pages_embed_lists_and_single_texts() {
    let server = start_default_server().await;
    let with_model = |more: Value| {
        let mut body = json!({"model": MODEL, "keep_alive": "5m", "options": {"temperature": 0.5}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let answer = send(&server, "/api/embed", &with_model(json!({"input": ["one", "two"]}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    let found: Vec<_> = body["embeddings"].as_array().unwrap().iter().map(floats).collect();
    assert_eq!(found, [expected(&bytes("one"), DIMENSIONS), expected(&bytes("two"), DIMENSIONS)]);
    assert_eq!((&body["model"], &body["prompt_eval_count"]), (&json!(MODEL), &json!(6)));
    assert!(body["total_duration"].as_u64().unwrap() > 0 && body["load_duration"].is_u64(), "{body}");
    let answer = send(&server, "/api/embed", &with_model(json!({"input": "one", "dimensions": 2}))).await;
    assert_eq!(floats(&answer.json()["embeddings"][0]), expected(&bytes("one"), 2));
    let answer = send(&server, "/api/embeddings", &with_model(json!({"prompt": "one"}))).await;
    assert_eq!(floats(&answer.json()["embedding"]), expected(&bytes("one"), DIMENSIONS));
    for input in [json!({}), json!({"input": ""}), json!({"input": []})] {
        assert_eq!(send(&server, "/api/embed", &with_model(input)).await.json()["embeddings"], json!([]));
    }
    assert_eq!(send(&server, "/api/embeddings", &with_model(json!({}))).await.json(), json!({"embedding": []}));
    // A long text is cut, unless the request says otherwise.
    let long = "x".repeat(600);
    let answer = send(&server, "/api/embed", &with_model(json!({"input": long}))).await;
    assert_eq!(floats(&answer.json()["embeddings"][0]), expected(&bytes(&long[..512]), DIMENSIONS));
    let answer = send(&server, "/api/embed", &with_model(json!({"input": long, "truncate": false}))).await;
    assert_eq!(answer.status, 400);
    assert!(answer.json()["error"].as_str().unwrap().contains("maximum context length"));
    for (path, more, word) in [
        ("/api/embed", json!({"input": 5}), "'input'"),
        ("/api/embed", json!({"input": ["a", 5]}), "'input[1]'"),
        ("/api/embed", json!({"input": vec!["a"; 2049]}), "at most 2048 texts"),
        ("/api/embed", json!({"input": "x", "truncate": 1}), "'truncate'"),
        ("/api/embed", json!({"input": "x", "dimensions": 99}), "'dimensions'"),
        ("/api/embed", json!({"input": "x", "keep_alive": true}), "'keep_alive'"),
        ("/api/embed", json!({"input": "x", "options": {"temperature": -1}}), "'options.temperature'"),
        ("/api/embeddings", json!({"prompt": ["x"]}), "'prompt'"),
    ] {
        let answer = send(&server, path, &with_model(more.clone())).await;
        assert_eq!(answer.status, 400, "{more}: {}", answer.text());
        assert!(answer.json()["error"].as_str().unwrap().contains(word), "{more}: {}", answer.text());
    }
}

#[tokio::test]
async fn ranking_is_refused_by_the_model_after_its_parameters_are_read() {
    let server = start_default_server().await;
    for path in ["/v1/rerank", "/rerank"] {
        for (body, param) in [
            (json!({"query": "q", "documents": ["a", {"text": "b"}], "top_n": 1}), "model"),
            (json!({"documents": ["a"]}), "query"),
            (json!({"query": 5, "documents": ["a"]}), "query"),
            (json!({"query": "q"}), "documents"),
            (json!({"query": "q", "documents": "a"}), "documents"),
            (json!({"query": "q", "documents": ["a", 5]}), "documents[1]"),
        ] {
            let answer = send(&server, path, &body).await;
            assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!(param)), "{body}");
        }
        let answer = send(&server, path, &json!({"query": "q", "documents": ["a"]})).await;
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(MODEL) && message.contains("cls.output.weight"), "{message}");
        let other = send(&server, path, &json!({"model": "gpt-4", "query": "q", "documents": ["a"]})).await;
        assert_eq!(other.status, 404);
    }
}
