//! Chat templates that requests bring.

use gateway::http::Settings;
use serde_json::json;

use crate::client::{ask, post};
use crate::double::{start_default_server, start_server};

#[tokio::test]
async fn a_request_brings_its_own_template_only_where_the_operator_trusts_requests() {
    let own = "{{ messages[0].content }}";
    let body =
        json!({"messages": [{"role": "user", "content": "go"}], "chat_template": own, "max_tokens": 2}).to_string();
    let pages = ["/v1/chat/completions", "/apply-template", "/tokenize"].map(|path| post(path, body.as_bytes()));
    let closed = start_default_server().await;
    for page in &pages {
        let answer = ask(closed.address, page).await;
        assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("chat_template")));
        assert!(answer.text().contains("--trust-request-chat-template"), "{}", answer.text());
    }
    let settings = Settings { trusts_request_chat_template: true, ..Settings::default() };
    let open = start_server(settings, 1000).await;
    for page in &pages {
        let answer = ask(open.address, page).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let chat = open.text.chats.lock().unwrap().pop().unwrap();
        assert_eq!(chat.template.as_deref(), Some(own));
    }
    let prompt = json!({"prompt": "go", "chat_template": own}).to_string();
    let answer = ask(open.address, &post("/v1/completions", prompt.as_bytes())).await;
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("chat_template")));
}
