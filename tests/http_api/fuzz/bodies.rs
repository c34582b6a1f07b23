//! A valid body or more for each page that takes one: what the mutator begins with.

use serde_json::{Value, json};

use crate::double::MODEL;

/// The pages and their bodies.
pub fn all() -> Vec<(&'static str, Value)> {
    let [generating, others] = [generating(), others()];
    generating.into_iter().chain(others).collect()
}

fn generating() -> Vec<(&'static str, Value)> {
    let messages = json!([
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": null, "reasoning_content": "Hm.", "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{\"at\": 1}"}}
        ]},
        {"role": "tool", "tool_call_id": "call_1", "content": "blue"},
        {"role": "user", "content": "go"}
    ]);
    let schema = json!({"type": "object", "properties": {"at": {"type": "integer"}}, "required": ["at"]});
    let tool = json!({"name": "look", "description": "Looks.", "parameters": schema, "strict": true});
    let options = json!({
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "typical_p": 0.9, "top_n_sigma": 1.0,
        "xtc_probability": 0.1, "xtc_threshold": 0.1, "dry_multiplier": 0.8, "dry_base": 1.75, "dry_allowed_length": 2,
        "dry_penalty_last_n": -1, "dry_sequence_breakers": ["\n"], "repeat_penalty": 1.1, "repeat_last_n": 64,
        "presence_penalty": 0.5, "frequency_penalty": 0.5, "seed": 7, "min_tokens": 1, "bad_words": ["no"],
        "logit_bias": {"97": 1.5}
    });
    let with = |body: Value, more: &Value| {
        let mut body = body;
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body
    };
    vec![
        ("/v1/chat/completions", json!({"messages": messages, "max_tokens": 5})),
        (
            "/v1/chat/completions",
            with(
                json!({
                    "model": MODEL, "messages": messages, "max_completion_tokens": 5, "n": 2, "stream": true,
                    "stream_options": {"include_usage": true}, "stop": ["a", "b"], "logprobs": true, "top_logprobs": 2,
                    "tools": [{"type": "function", "function": tool}], "tool_choice": "auto",
                    "parallel_tool_calls": false, "reasoning_effort": "low", "return_token_ids": true, "priority": 1,
                    "stop_token_ids": [1], "ignore_eos": true, "include_stop_str_in_output": true, "user": "u"
                }),
                &options,
            ),
        ),
        (
            "/v1/chat/completions",
            json!({
                "messages": messages, "max_tokens": 5, "prompt_logprobs": 1, "thinking_budget_tokens": 5,
                "chat_template_kwargs": {"enable_thinking": true, "x": [1, {"y": null}]},
                "add_generation_prompt": false,
                "continue_final_message": false, "tool_choice": {"type": "allowed_tools", "allowed_tools": {
                    "mode": "auto", "tools": [{"type": "function", "function": {"name": "look"}}]
                }}, "tools": [{"type": "function", "function": tool}],
                "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
            }),
        ),
        (
            "/v1/completions",
            with(
                json!({
                    "prompt": "go", "max_tokens": 5, "echo": true, "logprobs": 2, "best_of": 2, "stop": "\n",
                    "return_tokens_as_token_ids": true, "prompt_logprobs": 1
                }),
                &options,
            ),
        ),
        ("/v1/completions", json!({"prompt": [[97, 98], [99]], "n": 2, "max_tokens": 3, "stream": true})),
        ("/v1/completions", json!({"prompt": "a", "suffix": "b", "guided_regex": "[ab]+", "max_tokens": 3})),
        (
            "/v1/responses",
            json!({
                "model": MODEL, "instructions": "be brief", "max_output_tokens": 16, "store": true, "stream": true,
                "input": [
                    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
                    {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "call_1", "output": "blue"}
                ],
                "tools": [{"type": "function", "name": "look", "parameters": schema, "strict": false}],
                "tool_choice": "auto", "reasoning": {"effort": "low", "summary": "auto"}, "truncation": "auto",
                "text": {"format": {"type": "text"}, "verbosity": "low"}, "include": ["message.output_text.logprobs"],
                "top_logprobs": 1, "metadata": {"a": "b"}, "parallel_tool_calls": true, "temperature": 0.5
            }),
        ),
        ("/v1/responses", json!({"input": "go", "previous_response_id": null, "max_output_tokens": 5})),
        (
            "/v1/messages",
            json!({
                "model": MODEL, "max_tokens": 5, "system": [{"type": "text", "text": "be brief"}], "stream": true,
                "messages": [
                    {"role": "user", "content": "hi"},
                    {"role": "assistant", "content": [
                        {"type": "thinking", "thinking": "Hm.", "signature": ""},
                        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": 1}}
                    ]},
                    {"role": "user", "content": [
                        {"type": "tool_result", "tool_use_id": "toolu_1", "content": [
                            {"type": "text", "text": "blue"}
                        ]},
                        {"type": "text", "text": "go", "cache_control": {"type": "ephemeral"}}
                    ]}
                ],
                "tools": [{"name": "look", "description": "Looks.", "input_schema": schema}],
                "tool_choice": {"type": "auto", "disable_parallel_tool_use": true}, "stop_sequences": ["b"],
                "thinking": {"type": "enabled", "budget_tokens": 1024}, "metadata": {"user_id": "u"}, "top_k": 5
            }),
        ),
        (
            "/v1/messages",
            json!({
                "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}],
                "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": schema}}
            }),
        ),
        (
            "/api/chat",
            json!({
                "model": MODEL, "messages": [
                    {"role": "user", "content": "hi"},
                    {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": [
                        {"function": {"name": "look", "arguments": {"at": 1}}}
                    ]},
                    {"role": "tool", "tool_name": "look", "content": "blue"}
                ],
                "tools": [{"type": "function", "function": tool}], "options": with(json!({"num_predict": 5}), &options),
                "think": false, "keep_alive": "5m", "logprobs": true, "top_logprobs": 1
            }),
        ),
        (
            "/api/generate",
            json!({
                "model": MODEL, "prompt": "go", "system": "be brief", "stream": false, "raw": false, "suffix": "",
                "options": {"num_predict": 5, "stop": ["b"], "num_ctx": 64}, "format": ""
            }),
        ),
        ("/embedding", json!({"content": ["a", "b"], "embd_normalize": 2, "dimensions": 1})),
        ("/embeddings", json!({"input": [97, 98]})),
        (
            "/infill",
            with(
                json!({
                    "input_prefix": "a", "input_suffix": "b", "prompt": "c", "n_predict": 5, "samplers": ["top_k"],
                    "input_extra": [{"filename": "x.rs", "text": "fn"}], "stream": true, "t_max_predict_ms": 10
                }),
                &options,
            ),
        ),
    ]
}

fn others() -> Vec<(&'static str, Value)> {
    let messages = json!([{"role": "user", "content": "hi"}]);
    vec![
        ("/v1/messages/count_tokens", json!({"messages": messages, "tools": [], "system": "be brief"})),
        ("/v1/responses/resp_1/cancel", json!({})),
        ("/api/show", json!({"model": MODEL, "verbose": true})),
        ("/api/embed", json!({"model": MODEL, "input": ["a", "b"], "truncate": true, "dimensions": 8})),
        ("/api/embeddings", json!({"model": MODEL, "prompt": "a"})),
        (
            "/v1/embeddings",
            json!({"model": MODEL, "input": ["a", "bc"], "encoding_format": "base64", "dimensions": 2, "priority": 1}),
        ),
        ("/v1/embeddings", json!({"input": [[97, 98], [99]]})),
        ("/v1/rerank", json!({"query": "a", "documents": ["b", {"text": "c"}]})),
        ("/rerank", json!({"query": "a", "documents": ["b"]})),
        ("/tokenize", json!({"content": "a<END>", "add_special": true, "with_pieces": true, "parse_special": true})),
        ("/tokenize", json!({"messages": messages, "add_generation_prompt": true, "return_token_strs": true})),
        ("/detokenize", json!({"tokens": [97, 98, 256]})),
        ("/distributed/plan", json!({"stage": "a", "pin": {"layers": [0, 4]}, "seen": 7})),
        ("/distributed/pins", json!({"stage": "a", "pin": {"memory": "6GiB"}, "seen": null})),
        ("/distributed/drill", json!({"fault": "kill", "stage": "a", "tokens": 16})),
        ("/apply-template", json!({"messages": messages, "chat_template_kwargs": {"x": 1}, "tools": []})),
    ]
}
