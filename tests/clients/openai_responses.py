#!/usr/bin/env python3
"""OpenAI's Python SDK against `/v1/responses` of a running baton, and a request as Codex sends it.

    python3 -m venv venv && venv/bin/pip install -r tests/clients/requirements.txt
    target/release/baton up
    venv/bin/python tests/clients/openai_responses.py [--url URL] [--without WORK] [WORK ...]

WORK is one of the following; all of them unless said otherwise.

    whole        answers, counts, limits, log-probabilities
    stream       the same answers in events, each held against the SDK's types, and a client that goes away
    state        conversations over previous_response_id and item references; reading, listing and deleting
    tools        a required call, its result, and a conversation that goes on; needs a template that knows tools
    formats      text that fits a JSON schema
    reasoning    an effort, and reasoning that is sent back
    codex        the body that Codex sends, with its hosted tools and namespaces
    errors       refusals as the SDK's exceptions

Each line names what was checked. Exits with 1 at the first check that fails.
"""

import json
import urllib.request

from works import check, run, served  # First, since it sets the environment that the client reads.

import openai
import pydantic
from openai.types.responses import Response, ResponseStreamEvent

QUESTION = "What is the capital of France? Answer in one sentence."
STATUSES = ("completed", "incomplete")
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Tells the weather of a city.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}
TEXT_STREAM = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
]


def fits(kind, value):
    """The errors of `value` as an object of the SDK's type `kind`: none if it fits."""
    try:
        pydantic.TypeAdapter(kind).validate_python(value.to_dict())
    except pydantic.ValidationError as error:
        return str(error)
    return ""


def once(names):
    """`names` without those that repeat the one before."""
    return [name for number, name in enumerate(names) if number == 0 or name != names[number - 1]]


def calls(response):
    return [item for item in response.output if item.type == "function_call"]


class Works:
    def __init__(self, url):
        self.url = url
        self.model, _ = served(url)
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

    def ask(self, question=QUESTION, **more):
        body = {"temperature": 0, "max_output_tokens": 40, **more}
        return self.client.responses.create(model=self.model, input=question, **body)

    # --- the works ---

    def whole(self):
        response = self.ask(metadata={"a": "b"})
        check("a response fits the SDK's type", not fits(Response, response), fits(Response, response))
        check("it has text, a status and an id", response.output_text and response.id.startswith("resp_"), response)
        check("its status is a known one", response.status in STATUSES, response.status)
        usage = response.usage
        total = usage.input_tokens + usage.output_tokens
        check("tokens are counted", usage.output_tokens > 0 and usage.total_tokens == total, usage)
        check("metadata and defaults come back", (response.metadata, response.top_p) == ({"a": "b"}, 1.0), response)
        check("the request has an id", (response._request_id or "").startswith("req_"), response._request_id)
        check("the same question has the same answer", self.ask().output_text == response.output_text)

        one = self.ask(max_output_tokens=1)
        check("a limit of one token cuts the answer", one.status == "incomplete", one)
        check("and is the reason", one.incomplete_details.reason == "max_output_tokens", one)
        check("and is kept", one.usage.output_tokens == 1, one.usage)

        parts = [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}]
        check("a message of parts is the same question", self.ask(parts).output_text == response.output_text)
        # They take the place of a system message that the template may have of its own.
        counts = [self.ask(instructions="Be brief. " * times).usage.input_tokens for times in (1, 20)]
        check("instructions are part of the prompt", counts[1] - counts[0] >= 19, counts)

        scored = self.ask(max_output_tokens=4, include=["message.output_text.logprobs"])
        logprobs = scored.output[0].content[0].logprobs
        text = "".join(logprob.token for logprob in logprobs)
        check("log-probabilities are included on request", text == scored.output_text, (text, scored.output_text))
        top = self.ask(max_output_tokens=4, include=["message.output_text.logprobs"], top_logprobs=3)
        counts = [len(logprob.top_logprobs) for logprob in top.output[0].content[0].logprobs]
        check("with the likeliest tokens", counts and set(counts) == {3}, counts)

    def stream(self):
        whole = self.ask()
        stream = self.ask(stream=True)
        events = list(stream)
        errors = [found for event in events if (found := fits(ResponseStreamEvent, event))]
        check("every event fits the SDK's types", not errors, errors[:1])
        names = once([event.type for event in events])
        check("events come in OpenAI's order", names == [*TEXT_STREAM, f"response.{whole.status}"], names)
        numbers = [event.sequence_number for event in events]
        check("and are numbered", numbers == list(range(len(events))), numbers)
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        check("a stream has the text of the whole answer", text == whole.output_text, (text, whole.output_text))
        last = events[-1].response
        check("the last event has the whole response", last.output_text == text, last)
        check("and the same counts", last.usage.output_tokens == whole.usage.output_tokens, last.usage)

        with self.client.responses.stream(
            model=self.model, input="Say yes.", temperature=0, max_output_tokens=400
        ) as stream:
            snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
            final = stream.get_final_response()
        check("the SDK puts a stream together", snapshots[-1] == final.output_text, (snapshots[-1:], final))

        stream = self.ask(max_output_tokens=400, stream=True)
        next(iter(stream))
        stream.close()
        check("the server goes on after a client went away", self.ask(max_output_tokens=4).output_text)

    def state(self):
        first = self.ask("My name is Ada. Say hello.", store=True)
        second = self.ask("What is my name?", previous_response_id=first.id)
        history = [
            {"role": "user", "content": "My name is Ada. Say hello."},
            *[item.to_dict() for item in first.output],
            {"role": "user", "content": "What is my name?"},
        ]
        sent = self.ask(history)
        check("a conversation goes on from its response", second.output_text == sent.output_text, (second, sent))
        check("with the same prompt", second.usage.input_tokens == sent.usage.input_tokens, (second.usage, sent.usage))
        references = [{"type": "item_reference", "id": item.id} for item in first.output]
        referred = self.ask([history[0], *references, history[-1]])
        check("also by references", referred.output_text == second.output_text, referred)

        read = self.client.responses.retrieve(second.id)
        check("a response is read again", read.output_text == second.output_text, read)
        check("and names the earlier one", read.previous_response_id == first.id, read)
        items = list(self.client.responses.input_items.list(second.id, order="asc", limit=1))
        check("its input items are listed, page by page", len(items) == 2 + len(first.output), items)
        check("the oldest first", items[0].content[0].text.startswith("My name is Ada"), items[0])

        self.client.responses.delete(first.id)
        try:
            self.client.responses.retrieve(first.id)
            found = "it is there"
        except openai.NotFoundError as error:
            found = error
        check("a deleted response is gone", isinstance(found, openai.NotFoundError), found)
        again = self.ask("And now?", previous_response_id=second.id)
        check("and later ones go on", again.output_text, again)
        try:
            self.client.responses.cancel(second.id)
            found = "it was cancelled"
        except openai.BadRequestError as error:
            found = error
        check("a response that is complete is not cancelled", "synchronous" in str(found), found)

        secret = self.ask(store=False)
        try:
            found = self.ask("And now?", previous_response_id=secret.id)
        except openai.BadRequestError as error:
            found = error
        check("with store false nothing is kept", getattr(found, "code", "") == "previous_response_not_found", found)

    def tools(self):
        question = "What is the weather in Paris, in celsius? Use the tool."
        more = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False, "max_output_tokens": 400}
        response = self.ask(question, **more)
        called = [call.name for call in calls(response)]
        check("a required call comes, and one only", called == ["get_weather"], response)
        arguments = json.loads(calls(response)[0].arguments)
        is_valid = set(arguments) == {"city", "unit"} and arguments["unit"] in ("celsius", "fahrenheit")
        check("its arguments fit the schema", is_valid, arguments)

        events = list(self.ask(question, stream=True, **more))
        errors = [found for event in events if (found := fits(ResponseStreamEvent, event))]
        check("every event of a call fits the SDK's types", not errors, errors[:1])
        deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
        done = [event for event in events if event.type == "response.function_call_arguments.done"]
        check("a streamed call has the same arguments", json.loads(done[0].arguments) == arguments, done)
        check("which came in pieces", "".join(deltas) == done[0].arguments, deltas)

        named = self.ask(question, **{**more, "tool_choice": {"type": "function", "name": "get_weather"}})
        check("a named function is called", calls(named), named)
        without = self.ask(question, **{**more, "tool_choice": "none", "max_output_tokens": 40})
        check("with tool_choice none none is", not calls(without), without)

        output = {"type": "function_call_output", "call_id": calls(response)[0].call_id, "output": "21 degrees"}
        last = self.ask([output], previous_response_id=response.id, tools=[WEATHER])
        check("the conversation goes on with the result", last.output_text or calls(last), last)
        sent = [{"role": "user", "content": question}, *[item.to_dict() for item in response.output], output]
        again = self.ask(sent, tools=[WEATHER])
        check("also if all items are sent", again.output_text == last.output_text, (again, last))

    def formats(self):
        class City(pydantic.BaseModel):
            name: str
            inhabitants: int

        parsed = self.client.responses.parse(
            model=self.model, input=QUESTION, text_format=City, temperature=0, max_output_tokens=400
        )
        check("a text fits its schema", isinstance(parsed.output_parsed, City), parsed)
        answer = self.ask(f"{QUESTION} As JSON.", text={"format": {"type": "json_object"}}, max_output_tokens=400)
        is_object = answer.status == "incomplete" or isinstance(json.loads(answer.output_text), dict)
        check("a JSON object is one", is_object, answer)

    def reasoning(self):
        response = self.ask(reasoning={"effort": "low", "summary": "auto"}, max_output_tokens=1500)
        thoughts = [item for item in response.output if item.type == "reasoning"]
        print(f"      {self.model} {'reasons' if thoughts else 'answers without reasoning'}", flush=True)
        check("reasoning is text", all(item.content[0].text for item in thoughts), thoughts)
        counted = response.usage.output_tokens_details.reasoning_tokens
        check("and is counted", (counted > 0) == bool(thoughts) and counted <= response.usage.output_tokens, counted)
        items = [{"role": "user", "content": QUESTION}, *[item.to_dict() for item in response.output]]
        again = self.ask([*items, {"role": "user", "content": "Sure?"}], include=["reasoning.encrypted_content"])
        check("reasoning is taken back", again.output, again)
        off = self.ask(reasoning={"effort": "none"})
        check("and switched off", all(item.type != "reasoning" for item in off.output), off)

    def codex(self):
        shell = {"type": "function", "name": "shell_command", "description": "Runs a command.", "strict": False}
        shell["parameters"] = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
        spawn = {**shell, "name": "spawn_agent", "description": "Starts an agent."}
        namespace = {"type": "namespace", "name": "multi_agent_v1", "description": "Sub-agents.", "tools": [spawn]}

        def text(role, text):
            return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}

        call = {"type": "function_call", "name": "shell_command", "arguments": '{"command":"ls"}', "call_id": "call_1"}
        body = {
            "model": self.model,
            "instructions": "You are a coding agent.",
            "input": [
                text("developer", "Commands need approval."),
                text("user", "<environment_context></environment_context>"),
                text("user", "List the files."),
                {"type": "reasoning", "summary": [], "encrypted_content": None},
                call,
                {"type": "function_call_output", "call_id": "call_1", "output": "README.md"},
            ],
            "tools": [shell, namespace, {"type": "web_search", "external_web_access": False}],
            "tool_choice": "auto",
            "parallel_tool_calls": False,
            "reasoning": None,
            "store": False,
            "stream": True,
            "include": [],
            "prompt_cache_key": "0199",
            "client_metadata": {"installation": "none"},
            "max_output_tokens": 40,
        }
        request = urllib.request.Request(
            f"{self.url}/v1/responses", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            lines = [line for line in answer.read().decode().splitlines() if line.startswith("data: ")]
        events = [json.loads(line.removeprefix("data: ")) for line in lines]
        check("Codex's request is answered", events[0]["type"] == "response.created", events[:1])
        last = events[-1]
        check("to the end", last["type"] in ("response.completed", "response.incomplete"), last)
        types = [tool["type"] for tool in last["response"]["tools"]]
        check("without the tools that only OpenAI runs", types == ["function", "namespace"], types)
        items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        check("its items come whole", items == last["response"]["output"], items)

    def errors(self):
        def refused(what, kind, code, words, **more):
            arguments = {"model": self.model, "input": QUESTION, "max_output_tokens": 4, **more}
            try:
                found = self.client.responses.create(**arguments)
            except openai.APIStatusError as error:
                found = error
            check(what, isinstance(found, kind) and found.code == code, repr(found))
            check(f"  with {words!r}", words in found.message, found.message)

        bad, missing, unsupported = openai.BadRequestError, openai.NotFoundError, "unsupported_parameter"
        image = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,"}]}]
        refused("an unknown model is refused", missing, "model_not_found", "does not exist", model="no-such-model")
        refused("an image is refused", bad, unsupported, "'input_image'", input=image)
        refused("a hosted tool is refused", bad, unsupported, "'web_search'", tools=[{"type": "web_search"}])
        refused("a custom tool is refused", bad, unsupported, "'custom'", tools=[{"type": "custom", "name": "c"}])
        refused("background is refused", bad, unsupported, "'background'", background=True)
        refused("a wrong temperature is refused", bad, "invalid_value", "'temperature'", temperature=3)
        unknown = {"previous_response_id": "resp_1"}
        refused("an unknown response is refused", bad, "previous_response_not_found", "'resp_1' not found", **unknown)
        long, exceeded = "word " * 200_000, (bad, "context_length_exceeded", "maximum context length")
        refused("a prompt that is too long is refused", *exceeded, input=long)
        refused("also in a stream", *exceeded, input=long, stream=True)


if __name__ == "__main__":
    run(Works, __doc__)
