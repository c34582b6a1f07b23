#!/usr/bin/env python3
"""Anthropic's Python SDK against a running baton: the calls that its users and Claude Code make.

    python3 -m venv venv && venv/bin/pip install -r tests/clients/requirements.txt
    target/release/baton up --model-alias claude-sonnet-5
    venv/bin/python tests/clients/anthropic_messages.py [--url URL] [--without WORK] [WORK ...]

WORK is one of the following; all of them unless said otherwise.

    whole        answers, counts, stop sequences, limits, prefilled answers, system messages
    stream       the same answers in events, and a client that goes away
    tools        a forced call, its result, and a conversation that goes on; needs a template that knows tools
    thinking     thinking on and off; a model that does not reason answers without thinking
    errors       refusals as the SDK's exceptions

Each line names what was checked. Exits with 1 at the first check that fails.
"""

import json

from works import check, run, served  # First, since it sets the environment that the client reads.

import anthropic

QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
GREEDY = {"temperature": 0}
STOP_REASONS = ("end_turn", "max_tokens", "stop_sequence", "tool_use")
WEATHER = {
    "name": "get_weather",
    "description": "Tells the weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}


def input_tokens(usage):
    """All tokens of the prompt: computed, cached, and put into the cache."""
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


class Works:
    def __init__(self, url):
        self.model, self.aliases = served(url)
        self.client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)

    def ask(self, messages=QUESTION, max_tokens=40, **more):
        body = {**GREEDY, **more.pop("extra_body", {})}
        return self.client.messages.create(
            model=self.model, max_tokens=max_tokens, messages=messages, extra_body=body, **more
        )

    # --- the works ---

    def whole(self):
        message = self.ask()
        check("an answer has text, a reason and an id", text_of(message) and message.id.startswith("msg_"), message)
        check("its role and model are named", (message.role, message.model) == ("assistant", self.model), message)
        check("its reason is a known one", message.stop_reason in STOP_REASONS, message.stop_reason)
        check("tokens are counted", message.usage.output_tokens > 0 and input_tokens(message.usage) > 0, message.usage)
        check("the request has an id", (message._request_id or "").startswith("req_"), message._request_id)
        check("the same question has the same answer", text_of(self.ask()) == text_of(message))

        count = self.client.messages.count_tokens(model=self.model, messages=QUESTION).input_tokens
        check("count_tokens counts as the answer does", count == input_tokens(message.usage), (count, message.usage))

        one = self.ask(max_tokens=1)
        check("a limit of one token ends the answer", one.stop_reason == "max_tokens", one)
        check("and is kept", one.usage.output_tokens == 1, one.usage)

        stop = text_of(message).split()[-1]
        cut = self.ask(stop_sequences=["never said", stop])
        check("a stop sequence is named", (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", stop), cut)
        is_cut = text_of(message).startswith(text_of(cut)) and stop not in text_of(cut)
        check("and is not part of the text", is_cut, cut)

        prefill = [*QUESTION, {"role": "assistant", "content": "The capital is"}]
        continued = self.ask(prefill, max_tokens=8)
        check("a prefilled answer is continued", not text_of(continued).startswith("The capital is"), continued)
        check("after a prompt that has it", input_tokens(continued.usage) > count, continued.usage)

        cached = {"type": "ephemeral"}
        system = [{"type": "text", "text": "Be brief.", "cache_control": cached}]
        turns = [
            {"role": "user", "content": [{"type": "text", "text": "Hello.", "cache_control": cached}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Hello!"}]},
            {"role": "system", "content": "Today is Monday."},
            {"role": "user", "content": "Which day is it?"},
        ]
        message = self.ask(turns, system=system, metadata={"user_id": "someone"}, service_tier="auto")
        check("system blocks, cache marks and later system messages are taken", text_of(message), message)
        for alias in self.aliases:
            message = self.client.messages.create(model=alias, max_tokens=4, messages=QUESTION)
            check(f"the model answers to {alias}", message.model == self.model, message.model)

    def stream(self):
        whole = self.ask()
        with self.client.messages.stream(
            model=self.model, max_tokens=40, messages=QUESTION, extra_body=GREEDY
        ) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        check("a stream has the text of the whole answer", text == text_of(whole), (text, text_of(whole)))
        check("its message is put together", text_of(final) == text and final.stop_reason == whole.stop_reason, final)
        usages = [(input_tokens(message.usage), message.usage.output_tokens) for message in (whole, final)]
        check("and counted", usages[0] == usages[1], usages)

        events = list(
            self.client.messages.create(
                model=self.model, max_tokens=4, messages=QUESTION, extra_body=GREEDY, stream=True
            )
        )
        names = [event.type for event in events]
        ends = names[:2] + names[-3:]
        expected = ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]
        check("events come in Anthropic's order", ends == expected, names)
        check("with deltas between", set(names[2:-3]) == {"content_block_delta"}, names)
        started = input_tokens(events[0].message.usage)
        check("the first one tells the prompt's tokens", started == input_tokens(whole.usage), events[0])

        stream = self.client.messages.create(model=self.model, max_tokens=400, messages=QUESTION, stream=True)
        next(iter(stream))
        stream.close()
        check("the server goes on after a client went away", text_of(self.ask(max_tokens=4)))

    def tools(self):
        question = [{"role": "user", "content": "What is the weather in Paris, in celsius? Use the tool."}]
        forced = {"type": "any", "disable_parallel_tool_use": True}
        more = {"tools": [WEATHER], "tool_choice": forced, "max_tokens": 200}
        message = self.ask(question, **more)
        calls = [block for block in message.content if block.type == "tool_use"]
        check("a forced call comes, and one only", len(calls) == 1 and calls[0].name == "get_weather", message)
        check("and ends the turn", message.stop_reason == "tool_use", message.stop_reason)
        is_valid = set(calls[0].input) == {"city", "unit"} and calls[0].input["unit"] in ("celsius", "fahrenheit")
        check("its input fits the schema", is_valid and isinstance(calls[0].input["city"], str), calls[0].input)

        with self.client.messages.stream(
            model=self.model, messages=question, extra_body=GREEDY, **more
        ) as stream:
            partial = "".join(event.partial_json for event in stream if event.type == "input_json")
            final = stream.get_final_message()
        streamed = [block for block in final.content if block.type == "tool_use"]
        check("a streamed call has the same input", streamed[0].input == calls[0].input, streamed)
        check("which came as JSON text", json.loads(partial) == calls[0].input, partial)

        named = self.ask(question, **{**more, "tool_choice": {"type": "tool", "name": "get_weather"}})
        check("a named tool is called", named.stop_reason == "tool_use", named)
        without = self.ask(question, **{**more, "tool_choice": {"type": "none"}})
        check("with tool_choice none no tool is", without.stop_reason != "tool_use", without)

        degrees = [{"type": "text", "text": "21 degrees"}]
        result = {"type": "tool_result", "tool_use_id": calls[0].id, "content": degrees}
        turns = [
            *question,
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": [result, {"type": "text", "text": "Tell me in one sentence."}]},
        ]
        last = self.ask(turns, tools=[WEATHER], max_tokens=60)
        check("the conversation goes on with the result", last.content, last)
        failed = {**result, "content": "no such city", "is_error": True}
        turns[-1] = {"role": "user", "content": [failed]}
        check("and with an error", self.ask(turns, tools=[WEATHER], max_tokens=60).content)
        count = self.client.messages.count_tokens(model=self.model, messages=question).input_tokens
        with_tool = self.client.messages.count_tokens(model=self.model, messages=question, tools=[WEATHER])
        check("tools count as tokens of the prompt", with_tool.input_tokens > count, (count, with_tool))

    def thinking(self):
        budget = {"type": "enabled", "budget_tokens": 1024}
        message = self.ask(thinking=budget, max_tokens=1500)
        thoughts = [block for block in message.content if block.type == "thinking"]
        print(f"      {self.model} {'thinks' if thoughts else 'answers without thinking'}", flush=True)
        check("thinking is signed", all(block.thinking and block.signature for block in thoughts), thoughts)
        turns = [*QUESTION, {"role": "assistant", "content": message.content}, {"role": "user", "content": "Sure?"}]
        check("thinking is taken back", self.ask(turns, thinking=budget).content)
        with self.client.messages.stream(
            model=self.model, max_tokens=1500, messages=QUESTION, thinking=budget, extra_body=GREEDY
        ) as stream:
            final = stream.get_final_message()
        kinds = [[block.type for block in each.content] for each in (message, final)]
        check("streamed thinking has the same blocks", kinds[0] == kinds[1], kinds)
        texts = [[getattr(block, "thinking", "") for block in each.content] for each in (message, final)]
        check("and the same text", texts[0] == texts[1], texts)
        hidden = self.ask(thinking={"type": "adaptive", "display": "omitted"}, max_tokens=1500)
        shown = [block.thinking for block in hidden.content if block.type == "thinking" and block.thinking]
        check("thinking can be left out", not shown, shown)
        off = self.ask(thinking={"type": "disabled"})
        check("and switched off", all(block.type != "thinking" for block in off.content), off)
        effort = self.ask(thinking={"type": "adaptive"}, output_config={"effort": "low"}, max_tokens=1500)
        check("an effort is taken", effort.content, effort)

    def errors(self):
        def refused(what, expected, kind, words, **more):
            arguments = {"model": self.model, "max_tokens": 4, "messages": QUESTION, **more}
            try:
                found = self.client.messages.create(**arguments)
            except anthropic.APIStatusError as error:
                found = error
            check(what, isinstance(found, expected), repr(found))
            check(f"  as {kind}", found.type == kind and (found.request_id or "").startswith("req_"), found.body)
            check(f"  with {words!r}", words in found.api_message, found.api_message)

        bad = anthropic.BadRequestError, "invalid_request_error"
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
        search = {"type": "web_search_20250305", "name": "web_search"}
        missing = anthropic.NotFoundError, "not_found_error"
        refused("an unknown model is refused", *missing, "does not exist", model="no-such-model")
        refused("an image is refused", *bad, "'image'", messages=[{"role": "user", "content": [image]}])
        refused("a server's tool is refused", *bad, "'web_search_20250305'", tools=[search])
        refused("a wrong temperature is refused", *bad, "'temperature'", extra_body={"temperature": 3})
        long = [{"role": "user", "content": "word " * 200_000}]
        refused("a prompt that is too long is refused", *bad, "prompt is too long: ", messages=long)
        refused("also in a stream", *bad, "prompt is too long: ", messages=long, stream=True)


if __name__ == "__main__":
    run(Works, __doc__)
