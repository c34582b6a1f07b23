//! Prepares the answer to a chat: encodes the conversation, and plans how the answer is read and what bounds it. Every
//! dialect's chats come through here.

use super::options::GenerationOptions;
use super::start;
use super::text_model::{AnswerRequest, Conversation, TextError, TextForm, TextModel};
use crate::http::error::ApiError;
use crate::http::served_model::ServedModel;

/// Encodes the conversation of `request`, and writes the plan for the answer into `options`. The form in `options`, if
/// there is one, is that of the answer's text. `param` is the parameter that holds the conversation.
///
/// # Errors
/// A 400 about `param` when the conversation cannot be encoded, or its answer cannot be bounded as it asks for.
pub(crate) async fn prepare(
    state: &ServedModel,
    request: AnswerRequest,
    options: &mut GenerationOptions,
    param: &'static str,
) -> Result<Vec<u32>, ApiError> {
    prepare_with(state, request, options, param, <dyn TextModel>::encode_chat).await
}

/// As [`prepare`], with a way of encoding the conversation.
///
/// # Errors
/// As for [`prepare`].
pub(crate) async fn prepare_with(
    state: &ServedModel,
    request: AnswerRequest,
    options: &mut GenerationOptions,
    param: &'static str,
    encode: impl FnOnce(&dyn TextModel, &Conversation) -> Result<Vec<u32>, TextError> + Send + 'static,
) -> Result<Vec<u32>, ApiError> {
    start::check_generates(state)?;
    let form = options.form.as_ref().map(|form| form.source.clone());
    start::compile_form(state, options).await?;
    let text_form = options.tokens.grammar.take().zip(form).map(|(grammar, source)| TextForm { grammar, source });
    let prepared = start::encode(state, param, move |text| {
        let prompt = encode(text, &request.conversation)?;
        let plan = text.plan_answer(&request, &prompt);
        let grammar = text.answer_grammar(&plan, text_form)?;
        Ok((prompt, plan, grammar))
    });
    let (prompt, plan, grammar) = prepared.await?;
    options.tokens.grammar = grammar;
    options.answer = Some(plan);
    Ok(prompt)
}
