//! Answers that are not streamed: text, counts, finish reasons, choices.

use engine::generate::{Penalties, TokenOptions};
use gateway::http::Settings;
use schema::frame::Sampling;
use serde_json::{Value, json};

use crate::client::{ask, chat, complete, get, plain, post};
use crate::double::{
    BEGIN, CONTEXT_TOKENS, END, FIM, MODEL, chat_tokens, expected, greedy, logprob, next_token, start_default_server,
    start_server, usage,
};

/// A prompt whose greedy answer ends by itself after at least `tokens_min` tokens and within `tokens_max`.
fn prompt_that_ends(tokens_min: usize, tokens_max: usize) -> String {
    let ends = |prompt: &String| {
        let (_, tokens, stopped) = expected(&chat_tokens(&[("user", prompt)]), &greedy(), tokens_max);
        stopped && tokens >= tokens_min
    };
    (0..10_000).map(|number| format!("q{number}")).find(ends).unwrap()
}

#[tokio::test]
async fn a_chat_is_answered_with_the_whole_history_and_counted_exactly() {
    let server = start_default_server().await;
    let history = [("system", "be brief"), ("user", "hi"), ("assistant", "ho"), ("user", "again")];
    let messages: Vec<_> = history.iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
    let body = json!({"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 12});
    let answer = chat(server.address, &body).await;
    let prompt = chat_tokens(&history);
    let (text, tokens, stopped) = expected(&prompt, &greedy(), 12);
    let json = answer.json();
    assert_eq!(answer.status, 200, "{json}");
    assert_eq!(json["object"], "chat.completion");
    assert_eq!(json["model"], MODEL);
    assert!(json["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(json["choices"][0]["message"], json!({"role": "assistant", "content": text, "refusal": null}));
    assert_eq!(json["choices"][0]["finish_reason"], if stopped { "stop" } else { "length" });
    assert_eq!(json["usage"], usage(&[prompt.len()], 1, tokens));
}

#[tokio::test]
async fn a_stop_token_ends_an_answer_is_counted_and_has_no_text() {
    let server = start_default_server().await;
    let prompt = prompt_that_ends(3, 100);
    let body = json!({"messages": [{"role": "user", "content": prompt}], "temperature": 0});
    let json = chat(server.address, &body).await.json();
    let (text, tokens, _) = expected(&chat_tokens(&[("user", &prompt)]), &greedy(), 100);
    assert_eq!(json["choices"][0]["message"]["content"], text);
    assert_eq!(json["choices"][0]["finish_reason"], "stop");
    assert_eq!(json["usage"]["completion_tokens"], tokens);
}

#[tokio::test]
async fn stop_tokens_can_be_ignored_and_others_named() {
    let server = start_default_server().await;
    let prompt = prompt_that_ends(2, 20);
    let message = json!([{"role": "user", "content": prompt}]);
    let ignored = json!({"messages": message, "temperature": 0, "ignore_eos": true, "max_tokens": 30});
    let json = chat(server.address, &ignored).await.json();
    assert_eq!(json["usage"]["completion_tokens"], 30);
    assert_eq!(json["choices"][0]["finish_reason"], "length");
    let first = next_token(&chat_tokens(&[("user", &prompt)]), &greedy());
    let named = json!({"messages": message, "temperature": 0, "stop_token_ids": [first]});
    let json = chat(server.address, &named).await.json();
    assert_eq!(json["choices"][0]["message"]["content"], "");
    assert_eq!(json["usage"]["completion_tokens"], 1);
}

#[tokio::test]
async fn a_stop_string_cuts_the_text_and_cancels_the_sequence() {
    let server = start_default_server().await;
    let (whole, _, _) = expected(&chat_tokens(&[("user", "go")]), &greedy(), 40);
    let stop = &whole[5..8];
    let cut = whole.find(stop).unwrap();
    let body = json!({
        "messages": [{"role": "user", "content": "go"}], "temperature": 0, "max_tokens": 500, "stop": ["zzz", stop]
    });
    let json = chat(server.address, &body).await.json();
    assert_eq!(json["choices"][0]["message"]["content"], whole[..cut]);
    assert_eq!(json["choices"][0]["finish_reason"], "stop");
    assert_eq!(json["usage"]["completion_tokens"], cut + 3);
    server.until(|counts| counts.cancelled + counts.finished == 1).await;
}

#[tokio::test]
async fn choices_are_sequences_of_their_own_and_a_seed_repeats_them() {
    let server = start_default_server().await;
    let body = json!({
        "messages": [{"role": "user", "content": "go"}], "n": 3, "seed": 5, "temperature": 0.7, "max_tokens": 20
    });
    let json = chat(server.address, &body).await.json();
    let mut tokens_total = 0;
    for choice in 0..3 {
        let sampling = Sampling { temperature: 0.7, seed: 5, choice, ..greedy() };
        let (text, tokens, _) = expected(&chat_tokens(&[("user", "go")]), &sampling, 20);
        assert_eq!(json["choices"][choice as usize]["index"], choice);
        assert_eq!(json["choices"][choice as usize]["message"]["content"], text);
        tokens_total += tokens;
    }
    assert_eq!(json["usage"]["completion_tokens"], tokens_total);
    assert_eq!(json["usage"]["prompt_tokens"], chat_tokens(&[("user", "go")]).len());
    let again = chat(server.address, &body).await.json();
    assert_eq!(json["choices"], again["choices"]);
}

#[tokio::test]
async fn sampling_parameters_reach_the_pipeline() {
    let server = start_default_server().await;
    let body = json!({
        "messages": [{"role": "user", "content": "go"}], "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05,
        "seed": -1, "max_completion_tokens": 2, "user": "someone", "stop": null, "unknown": {"a": 1}
    });
    assert_eq!(chat(server.address, &body).await.status, 200);
    let request = server.pipeline.requests.lock().unwrap().pop().unwrap();
    let sampling =
        Sampling { temperature: 0.5, top_k: 40, top_p: 0.9, min_p: 0.05, seed: u64::MAX, ..Sampling::GREEDY };
    assert_eq!(request.tokens, TokenOptions::new(sampling));
    assert_eq!((request.tokens_max, request.stop_tokens), (2, vec![END]));
}

#[tokio::test]
async fn a_limit_beyond_the_context_is_lowered_to_the_context() {
    let server = start_default_server().await;
    for asked in [json!(1_000_000), json!(null)] {
        let body = json!({"messages": [{"role": "user", "content": "go"}], "max_tokens": asked});
        chat(server.address, &body).await;
        let request = server.pipeline.requests.lock().unwrap().pop().unwrap();
        assert_eq!(request.tokens_max, CONTEXT_TOKENS - request.prompt.len() as u32);
    }
}

#[tokio::test]
async fn a_chat_without_a_limit_ends_at_the_default_limit_with_length() {
    let server = start_server(Settings { default_max_tokens: 7, ..Settings::default() }, 1000).await;
    let message = json!([{"role": "user", "content": "go"}]);
    let without_limit = json!({"messages": message, "temperature": 0, "ignore_eos": true});
    let json = chat(server.address, &without_limit).await.json();
    assert_eq!(json["usage"]["completion_tokens"], 7);
    assert_eq!(json["choices"][0]["finish_reason"], "length");
    for limit in ["max_tokens", "max_completion_tokens"] {
        let mut limited = without_limit.clone();
        limited[limit] = json!(30);
        let json = chat(server.address, &limited).await.json();
        assert_eq!(json["usage"]["completion_tokens"], 30, "{limit} is not bounded by the default");
    }
    let mut streamed = without_limit;
    streamed["stream"] = json!(true);
    let chunks = chat(server.address, &streamed).await.chunks();
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn prompts_are_completed_in_order_and_raw() {
    let server = start_default_server().await;
    let body = json!({"prompt": ["ab", "c"], "n": 2, "temperature": 0, "seed": 1});
    let json = complete(server.address, &body).await.json();
    assert_eq!(json["object"], "text_completion");
    assert!(json["id"].as_str().unwrap().starts_with("cmpl-"));
    let mut tokens_total = 0;
    for (index, prompt) in [[97u32, 98].as_slice(), &[97, 98], &[99], &[99]].into_iter().enumerate() {
        let (text, tokens, _) = expected(prompt, &greedy(), 16);
        assert_eq!(json["choices"][index]["index"], index);
        assert_eq!(json["choices"][index]["text"], text);
        tokens_total += tokens;
    }
    assert_eq!(json["usage"], usage(&[2, 1], 2, tokens_total));
    let ids = complete(server.address, &json!({"prompt": [97, 98], "temperature": 0})).await.json();
    assert_eq!(ids["choices"][0]["text"], json["choices"][0]["text"]);
}

#[tokio::test]
async fn the_log_probabilities_of_chosen_tokens_are_in_both_shapes() {
    let server = start_default_server().await;
    let (text, _, _) = expected(&[97, 98], &greedy(), 4);
    let first = text.chars().next().unwrap();
    let body = json!({"prompt": "ab", "temperature": 0, "max_tokens": 4, "logprobs": 0});
    let logprobs = &complete(server.address, &body).await.json()["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"].as_array().unwrap().len(), text.len());
    assert_eq!(logprobs["tokens"][0], first.to_string());
    assert_eq!(logprobs["token_logprobs"][0], f64::from(logprob(u32::from(first))));
    assert_eq!(logprobs["text_offset"], json!((0..text.len()).collect::<Vec<_>>()));
    let body =
        json!({"messages": [{"role": "user", "content": "go"}], "max_tokens": 3, "logprobs": true, "top_logprobs": 0});
    let json = chat(server.address, &body).await.json();
    let content = json["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let content_text = json["choices"][0]["message"]["content"].as_str().unwrap();
    let tokens: String = content.iter().map(|logprob| logprob["token"].as_str().unwrap()).collect();
    assert_eq!(tokens, content_text);
    assert!(content.iter().all(|logprob| logprob["top_logprobs"] == json!([])));
}

#[tokio::test]
async fn the_likeliest_tokens_are_in_both_shapes() {
    let server = start_default_server().await;
    let top =
        |token: u32| json!({"token": char::from(token as u8).to_string(), "logprob": logprob(token), "bytes": [token]});
    let body = json!({
        "messages": [{"role": "user", "content": "go"}], "temperature": 0, "max_tokens": 3, "ignore_eos": true,
        "logprobs": true, "top_logprobs": 2
    });
    let json = chat(server.address, &body).await.json();
    for token in json["choices"][0]["logprobs"]["content"].as_array().unwrap() {
        assert_eq!(token["top_logprobs"], json!([top(97), top(98)]));
    }
    let body = json!({"prompt": "ab", "temperature": 0, "max_tokens": 2, "logprobs": 2, "ignore_eos": true});
    let logprobs = &complete(server.address, &body).await.json()["choices"][0]["logprobs"];
    let chosen = logprobs["tokens"][0].as_str().unwrap();
    let mut expected = json!({"a": logprob(97), "b": logprob(98)});
    expected[chosen] = logprobs["token_logprobs"][0].clone();
    assert_eq!(logprobs["top_logprobs"][0], expected);
}

#[tokio::test]
async fn an_echoed_prompt_comes_first_with_its_scores() {
    let server = start_default_server().await;
    let (text, _, _) = expected(&[97, 98, 99], &greedy(), 3);
    let body = json!({"prompt": "abc", "temperature": 0, "max_tokens": 3, "echo": true, "logprobs": 1});
    let choice = complete(server.address, &body).await.json()["choices"][0].clone();
    assert_eq!(choice["text"], format!("abc{text}"));
    let logprobs = &choice["logprobs"];
    assert_eq!(logprobs["tokens"].as_array().unwrap().len(), 3 + text.len());
    assert_eq!(logprobs["token_logprobs"][0], json!(null));
    assert_eq!(logprobs["top_logprobs"][0], json!(null));
    assert_eq!(logprobs["token_logprobs"][1], json!(logprob(98)));
    assert_eq!(logprobs["top_logprobs"][2], json!({"a": logprob(97), "c": logprob(99)}));
    assert_eq!(logprobs["text_offset"], json!((0..3 + text.len()).collect::<Vec<_>>()));
    // Streamed, the same pieces come one after the other.
    let mut streamed = body;
    streamed["stream"] = json!(true);
    let chunks = complete(server.address, &streamed).await.chunks();
    let pieces: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str()).collect();
    assert_eq!(pieces, format!("abc{text}"));
}

#[tokio::test]
async fn a_prompt_is_scored_without_a_token() {
    let server = start_default_server().await;
    let body = json!({"prompt": "abc", "max_tokens": 0, "echo": true, "logprobs": 0});
    let json = complete(server.address, &body).await.json();
    let choice = &json["choices"][0];
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!("abc"), &json!("length")));
    assert_eq!(choice["logprobs"]["token_logprobs"], json!([null, logprob(98), logprob(99)]));
    assert_eq!(json["usage"]["completion_tokens"], 0);
    let body = json!({"prompt": "abc", "max_tokens": 0, "prompt_logprobs": 1});
    let choice = complete(server.address, &body).await.json()["choices"][0].clone();
    let score = |token: u32, rank: u32| {
        let text = char::from(token as u8).to_string();
        json!({"logprob": logprob(token), "rank": rank, "decoded_token": text})
    };
    let expected = json!([null, {"97": score(97, 1), "98": score(98, 7)}, {"97": score(97, 1), "99": score(99, 7)}]);
    assert_eq!(choice["prompt_logprobs"], expected);
    assert_eq!(choice["text"], "");
    let body = json!({"messages": [{"role": "user", "content": "go"}], "max_tokens": 1, "prompt_logprobs": 0});
    let json = chat(server.address, &body).await.json();
    assert_eq!(json["prompt_logprobs"].as_array().unwrap().len(), chat_tokens(&[("user", "go")]).len());
}

#[tokio::test]
async fn the_best_choices_are_those_of_the_highest_log_probability() {
    let server = start_default_server().await;
    let ask = |choices: Value| {
        let body = json!({"prompt": "ab", "temperature": 1, "seed": 3, "max_tokens": 6, "ignore_eos": true});
        let body: serde_json::Map<_, _> =
            body.as_object().unwrap().clone().into_iter().chain(choices.as_object().unwrap().clone()).collect();
        Value::Object(body)
    };
    let all = complete(server.address, &ask(json!({"n": 4, "logprobs": 0}))).await.json();
    let mean = |choice: &Value| {
        let logprobs = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        logprobs.iter().map(|logprob| logprob.as_f64().unwrap()).sum::<f64>() / logprobs.len() as f64
    };
    let mut choices: Vec<_> = all["choices"].as_array().unwrap().iter().collect();
    choices.sort_by(|one, other| mean(other).total_cmp(&mean(one)));
    let best = complete(server.address, &ask(json!({"n": 2, "best_of": 4}))).await.json();
    let texts: Vec<_> = best["choices"].as_array().unwrap().iter().map(|choice| &choice["text"]).collect();
    assert_eq!(texts, [&choices[0]["text"], &choices[1]["text"]]);
    assert_eq!(best["choices"][1]["index"], 1);
    assert_eq!(best["usage"]["completion_tokens"], 24);
}

#[tokio::test]
async fn a_stop_string_may_be_a_part_of_the_answer() {
    let server = start_default_server().await;
    let (whole, _, _) = expected(&chat_tokens(&[("user", "go")]), &greedy(), 40);
    let stop = &whole[5..8];
    let end = whole.find(stop).unwrap() + 3;
    let body = json!({
        "messages": [{"role": "user", "content": "go"}], "temperature": 0, "stop": stop,
        "include_stop_str_in_output": true
    });
    let json = chat(server.address, &body).await.json();
    assert_eq!(json["choices"][0]["message"]["content"], whole[..end]);
}

#[tokio::test]
async fn penalties_and_biases_reach_the_pipeline() {
    let server = start_default_server().await;
    let body = json!({
        "messages": [{"role": "user", "content": "go"}], "temperature": 0, "seed": 0, "max_tokens": 2,
        "logit_bias": {"97": -5}, "presence_penalty": 0.5, "frequency_penalty": -0.5, "repetition_penalty": 1.25,
        "min_tokens": 2, "bad_words": ["x"], "typical_p": 0.5, "top_n_sigma": 1.5
    });
    assert_eq!(chat(server.address, &body).await.status, 200);
    let request = server.pipeline.requests.lock().unwrap().pop().unwrap();
    let penalties = Penalties { repetition: 1.25, presence: 0.5, frequency: -0.5, ..Penalties::NONE };
    let sampling = Sampling { typical_p: 0.5, top_n_sigma: 1.5, ..Sampling::GREEDY };
    let tokens = TokenOptions {
        bias: vec![(97, -5.0)],
        penalties,
        tokens_min: 2,
        forbidden: vec![vec![120], vec![32, 120]],
        ..TokenOptions::new(sampling)
    };
    assert_eq!(request.tokens, tokens);
}

#[tokio::test]
async fn the_timings_have_the_work_of_each_stage() {
    let server = start_default_server().await;
    let body = json!({"prompt": "abc", "temperature": 0, "max_tokens": 5, "ignore_eos": true});
    let timings = complete(server.address, &body).await.json()["timings"].clone();
    let stages = json!([{"stage": "one", "layers": [0, 4], "rows": 7, "compute_ms": 0.007}]);
    assert_eq!(
        timings,
        json!({
            "cache_n": 1, "prompt_n": 2, "prompt_ms": 20.0, "prompt_per_second": 100.0,
            "predicted_n": 5, "predicted_ms": 40.0, "predicted_per_second": 100.0,
            "queued_ms": 3.0, "attempts": 1, "stages": stages
        })
    );
}

#[tokio::test]
async fn models_are_listed_and_found_by_an_id_with_a_slash() {
    let server = start_default_server().await;
    let list = get(server.address, "/v1/models").await.json();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][0]["id"], MODEL);
    for path in ["/v1/models/org/count-1", "/v1/models/org%2Fcount-1"] {
        assert_eq!(get(server.address, path).await.json()["id"], MODEL, "{path}");
    }
    let missing = get(server.address, "/v1/models/gpt-4").await;
    assert_eq!((missing.status, &missing.json()["error"]["code"]), (404, &json!("model_not_found")));
}

#[tokio::test]
async fn head_and_options_are_answered() {
    let server = start_default_server().await;
    let head = ask(server.address, &plain("HEAD", "/v1/models")).await;
    assert_eq!(head.status, 200);
    assert!(head.header("content-length").unwrap().parse::<u32>().unwrap() > 0);
    let options = ask(server.address, &plain("OPTIONS", "/v1/chat/completions")).await;
    assert_eq!((options.status, options.header("allow")), (204, Some("POST")));
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_a_clients_own_is_kept() {
    let server = start_default_server().await;
    let own = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: my-1\r\n\r\n";
    assert_eq!(ask(server.address, own).await.header("x-request-id"), Some("my-1"));
    let one = get(server.address, "/nowhere").await.header("x-request-id").unwrap().to_owned();
    let two = get(server.address, "/nowhere").await.header("x-request-id").unwrap().to_owned();
    assert!(one.starts_with("req_") && one != two, "{one} {two}");
}

#[tokio::test]
async fn a_panic_in_a_handler_is_a_500_and_the_server_goes_on() {
    let server = start_default_server().await;
    let body = json!({"messages": [{"role": "user", "content": "panic"}]});
    let answer = ask(server.address, &post("/v1/chat/completions", body.to_string().as_bytes())).await;
    assert_eq!((answer.status, &answer.json()["error"]["type"]), (500, &json!("server_error")));
    assert_eq!(get(server.address, "/health").await.status, 200);
}

#[tokio::test]
async fn a_completion_with_a_suffix_fills_the_gap_before_it() {
    let server = start_default_server().await;
    let body = json!({"prompt": ["ab", "d"], "suffix": "c", "max_tokens": 1});
    let answer = complete(server.address, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let prompts: Vec<_> =
        server.pipeline.requests.lock().unwrap().iter().map(|request| request.prompt.clone()).collect();
    let gap = |prefix: &[u32]| [&[BEGIN, FIM.prefix], prefix, &[FIM.suffix, 99, FIM.middle]].concat();
    assert_eq!(prompts, [gap(&[97, 98]), gap(&[100])]);
    let empty = complete(server.address, &json!({"prompt": "ab", "suffix": "", "max_tokens": 1})).await;
    assert_eq!(empty.status, 200);
    assert_eq!(server.pipeline.requests.lock().unwrap()[2].prompt, [97, 98]);
    for body in [
        json!({"prompt": [97], "suffix": "c"}),
        json!({"prompt": "ab", "suffix": "c", "echo": true}),
        json!({"prompt": "ab", "suffix": 5}),
    ] {
        let answer = complete(server.address, &body).await;
        assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("suffix")), "{body}");
    }
}
