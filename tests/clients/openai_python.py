#!/usr/bin/env python3
"""OpenAI's Python SDK against a running baton: chat and text completions as its users call them.

    python3 -m venv venv && venv/bin/pip install -r tests/clients/requirements.txt
    target/release/baton up
    venv/bin/python tests/clients/openai_python.py [--url URL] [--without WORK] [WORK ...]

WORK is one of the following; all of them unless said otherwise.

    chat            answers, roles, limits, stop strings, seeds, choices, counts
    choosing        logit bias, penalties, and the parameters of vLLM and llama.cpp
    scores          log-probabilities and alternatives, whole and streamed
    stream          the same answers in pieces, several choices, and a client that goes away
    schema          JSON, and JSON that fits a strict schema, parsed by the SDK
    tools           forced and named calls, their results, calls in a stream
    completions     texts, tokens, several prompts, echoed prompts with their scores
    embeddings      one text and several, fewer dimensions, as the SDK asks for them (base64) and as numbers
    models          the list and its entries
    errors          refusals as the SDK's exceptions, time limits
    asynchronous    the asynchronous client: eight requests at once, streams, cancelled requests

Each line names what was checked. Exits with 1 at the first check that fails.
"""

import asyncio
import json
import math
from typing import Annotated, Literal

from works import check, raised, run, served  # First, since it sets the environment that the others read.

import openai
from pydantic import BaseModel, Field

QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
LONG = [{"role": "user", "content": "word " * 20_000}]
# With it an answer takes all its tokens.
ENDLESS = {"ignore_eos": True}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
TIME = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "Tells the time of day in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}},
    },
}
ASKED = [{"role": "user", "content": "What is the weather in Paris, in celsius? Use the tool."}]


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)
    size: Literal["small", "large"]
    population: int = Field(ge=0, le=100_000_000)
    capital: bool
    rivers: list[Annotated[str, Field(max_length=20)]] = Field(max_length=2)


class Weather(BaseModel):
    """Tells the weather of a city."""

    city: str = Field(max_length=20)
    unit: Literal["celsius", "fahrenheit"]


def dot(one, other):
    return sum(a * b for a, b in zip(one, other))


def text_of(answer):
    return answer.choices[0].message.content


def pieces(chunks, index=0):
    """The text of one choice of a stream."""
    choices = (choice for chunk in chunks for choice in chunk.choices if choice.index == index)
    return "".join(choice.delta.content or "" for choice in choices)


class Works:
    def __init__(self, url):
        self.url = url
        self.model, _ = served(url)
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)

    def _chat(self, messages=QUESTION, max_tokens=24, temperature=0, **more):
        return self.client.chat.completions.create(
            model=self.model, messages=messages, max_tokens=max_tokens, temperature=temperature, **more
        )

    def _complete(self, prompt="The capital of France is", max_tokens=8, temperature=0, **more):
        return self.client.completions.create(
            model=self.model, prompt=prompt, max_tokens=max_tokens, temperature=temperature, **more
        )

    # --- the works ---

    def chat(self):
        answer = self._chat()
        choice = answer.choices[0]
        check("an answer has text and an id", choice.message.content and answer.id.startswith("chatcmpl-"), answer)
        check("its role and model are named", (choice.message.role, answer.model) == ("assistant", self.model), answer)
        check("its reason is a known one", choice.finish_reason in ("stop", "length"), choice.finish_reason)
        absent = (choice.message.refusal, choice.message.tool_calls, choice.logprobs)
        check("it has no refusal, calls or scores", absent == (None, None, None), choice)
        reasoning = [getattr(choice.message, name, None) for name in ("reasoning", "reasoning_content")]
        check("a model that does not reason has no reasoning", not any(reasoning), choice.message)
        usage = answer.usage
        check("tokens are counted", usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 24, usage)
        check("and added up", usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage)
        check("the request has an id", answer._request_id, answer._request_id)
        again = self._chat()
        check("the same question has the same answer", text_of(again) == text_of(answer), again)
        cached = again.usage.prompt_tokens_details.cached_tokens
        check("and its prompt was in the cache", cached is not None and cached <= usage.prompt_tokens, again.usage)

        one = self._chat(max_tokens=openai.omit, max_completion_tokens=1)
        found = (one.choices[0].finish_reason, one.usage.completion_tokens)
        check("a limit of one token ends the answer", found == ("length", 1), one)
        word = text_of(answer).split()[-1]
        cut = self._chat(stop=["never said", word])
        check("a stop string ends it", cut.choices[0].finish_reason == "stop", cut)
        check("and is not part of it", text_of(answer).startswith(text_of(cut)) and word not in text_of(cut), cut)

        warm = {"temperature": 1, "seed": 7}
        texts = [text_of(self._chat(**warm)) for _ in range(2)]
        check("a seed repeats an answer", texts[0] == texts[1], texts)
        check("another seed gives another one", text_of(self._chat(**{**warm, "seed": 8})) != texts[0], texts)
        several = self._chat(n=3, **warm)
        contents = [choice.message.content for choice in several.choices]
        check("choices are numbered", [choice.index for choice in several.choices] == [0, 1, 2], several)
        check("and differ", len(set(contents)) > 1, contents)
        most = several.usage.completion_tokens
        check("and are counted together", usage.completion_tokens < most <= 3 * 24, several.usage)

        parts = [{"type": "text", "text": "What is the capital"}, {"type": "text", "text": "of France?"}]
        turns = [
            {"role": "developer", "content": "Answer in one word."},
            {"role": "user", "content": parts, "name": "someone"},
            {"role": "assistant", "content": "Paris."},
            {"role": "user", "content": "And of Italy?"},
        ]
        unread = {"user": "someone", "metadata": {"a": "b"}, "store": False, "service_tier": "auto"}
        answer = self._chat(turns, max_tokens=8, top_p=0.9, **unread)
        check("developers, parts and names are taken", text_of(answer), answer)
        effort = self._chat(max_tokens=4, reasoning_effort="low")
        check("an effort is taken", effort.choices[0].finish_reason in ("stop", "length"), effort)
        raw = self.client.chat.completions.with_raw_response.create(
            model=self.model, messages=QUESTION, max_tokens=1
        )
        check("the raw answer is JSON", raw.headers["content-type"].startswith("application/json"), raw.headers)
        check("and parsed when asked", raw.parse().choices[0].message.role == "assistant", raw.text)

    def choosing(self):
        answer = self._complete(max_tokens=1, logprobs=0)
        first = answer.choices[0].logprobs.token_ids[0]
        plain = answer.choices[0].text
        other = self._complete(max_tokens=1, logprobs=0, logit_bias={str(first): -100}).choices[0]
        check("a bias of -100 bans a token", other.text != plain, (plain, other.text))
        unlikely = self._complete("ab", max_tokens=1, logprobs=0).choices[0].logprobs.token_ids[0]
        forced = self._complete(max_tokens=4, logprobs=0, logit_bias={str(unlikely): 100}).choices[0]
        check("a bias of 100 forces one", forced.logprobs.token_ids == [unlikely] * 4, forced)
        chat = self._chat(max_tokens=4, logprobs=True, logit_bias={str(unlikely): 100})
        tokens = {scored.token for scored in chat.choices[0].logprobs.content}
        check("also in a chat", len(tokens) == 1, tokens)

        # Every model goes on with what it has seen so often.
        often = "yes yes yes yes yes yes yes yes yes yes"
        plain = self._complete(often, max_tokens=40).choices[0].text
        for name in ("presence_penalty", "frequency_penalty"):
            penalised = [self._complete(often, max_tokens=40, **{name: value}).choices[0].text for value in (0, 2)]
            check(f"a {name} of 0 changes nothing", penalised[0] == plain, penalised)
            check("one of 2 changes the answer", penalised[1] != plain, penalised)
        repeated = self._complete(often, max_tokens=40, extra_body={"repetition_penalty": 1.5}).choices[0].text
        check("a repetition_penalty does, too", repeated != plain, repeated)
        greedy = text_of(self._chat(temperature=1, seed=3, extra_body={"top_k": 1}))
        check("top_k of 1 is greedy", greedy == text_of(self._chat()), greedy)
        likely = text_of(self._chat(temperature=1, seed=3, extra_body={"min_p": 1}))
        check("and so is min_p of 1", likely == greedy, likely)
        long = self._chat(max_tokens=40, extra_body={"min_tokens": 40})
        check("min_tokens makes an answer go on", long.usage.completion_tokens == 40, long.usage)

    def scores(self):
        answer = self._chat(logprobs=True, top_logprobs=3)
        scored = answer.choices[0].logprobs.content
        check("every token has a score", all(each.logprob <= 0 for each in scored), scored)
        check("and three alternatives", all(len(each.top_logprobs) == 3 for each in scored), scored)
        check("the likeliest was taken", all(each.top_logprobs[0].token == each.token for each in scored), scored)
        ranked = all(each.top_logprobs == sorted(each.top_logprobs, key=lambda top: -top.logprob) for each in scored)
        check("alternatives come in order", ranked, scored)
        bytes_of = b"".join(bytes(each.bytes) for each in scored)
        check("their bytes are the text", bytes_of.decode() == text_of(answer), bytes_of)
        none = self._chat(logprobs=True, top_logprobs=0).choices[0].logprobs.content
        check("no alternatives if none are asked for", not any(each.top_logprobs for each in none), none)
        check("scores do not depend on them", [each.logprob for each in none] == [each.logprob for each in scored])
        chunks = list(self._chat(logprobs=True, top_logprobs=3, stream=True))
        parts = [choice.logprobs for chunk in chunks for choice in chunk.choices if choice.logprobs]
        streamed = [each for part in parts for each in part.content or []]
        check("a stream has the same scores", streamed == scored, streamed)

        chosen = self._chat(temperature=1.5, seed=4, logprobs=True, top_logprobs=20).choices[0].logprobs.content
        listed = all(abs(sum(math.exp(top.logprob) for top in each.top_logprobs)) <= 1.0001 for each in chosen)
        check("20 alternatives are at most everything", listed, chosen)
        legacy = self._complete(logprobs=3).choices[0]
        lists = legacy.logprobs
        lengths = [len(each) for each in (lists.tokens, lists.token_logprobs, lists.top_logprobs, lists.text_offset)]
        check("text completions have four lists of one length", lengths == [8] * 4, lists)
        check("their tokens are the text", "".join(lists.tokens) == legacy.text, lists.tokens)
        ends = [at + len(token) for at, token in zip(lists.text_offset, lists.tokens)]
        check("offsets follow from tokens", lists.text_offset[1:] == ends[:-1], lists.text_offset)
        check("alternatives are listed by token", all(len(top) == 3 for top in lists.top_logprobs), lists)

    def stream(self):
        whole = self._chat()
        chunks = list(self._chat(stream=True, stream_options={"include_usage": True}))
        check("a stream has the text of the whole answer", pieces(chunks) == text_of(whole), pieces(chunks))
        check("its pieces have one id", len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1, chunks)
        check("the first one has the role", chunks[0].choices[0].delta.role == "assistant", chunks[0])
        check("the last one has the counts only", (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage), chunks)
        check("the others do not", not any(chunk.usage for chunk in chunks[:-1]), chunks)
        ends = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
        check("there is one reason", ends == [whole.choices[0].finish_reason], ends)
        plain = list(self._chat(stream=True))
        check("without being asked for, no counts come", all(chunk.choices for chunk in plain), plain[-1])

        warm = {"temperature": 1, "seed": 7, "n": 2}
        both = self._chat(**warm)
        chunks = list(self._chat(stream=True, **warm))
        texts = [pieces(chunks, index) for index in (0, 1)]
        expected = [choice.message.content for choice in both.choices]
        check("two choices are streamed at once", texts == expected, (texts, expected))

        with self.client.chat.completions.stream(
            model=self.model, messages=QUESTION, max_tokens=24, temperature=0
        ) as events:
            kinds = {event.type for event in events}
            final = events.get_final_completion()
        check("the SDK's events come", {"chunk", "content.delta", "content.done"} <= kinds, kinds)
        check("and are put together", text_of(final) == text_of(whole), final)

        stream = self._chat(stream=True, max_tokens=2000, extra_body=ENDLESS)
        next(iter(stream))
        stream.close()
        check("the server goes on after a client went away", text_of(self._chat(max_tokens=2)))

    def schema(self):
        question = [{"role": "user", "content": "Describe the city of Paris in JSON."}]
        parse = self.client.chat.completions.parse
        # So many tokens are enough for all that the schema allows.
        asked = {"model": self.model, "messages": question, "max_tokens": 1000}
        for temperature in (0, 1):
            answer = parse(response_format=City, temperature=temperature, seed=2, **asked)
            found = answer.choices[0].message
            check(f"a class is filled at temperature {temperature}", isinstance(found.parsed, City), found)
            check("from the text", json.loads(found.content) == found.parsed.model_dump(), found.content)
        with self.client.chat.completions.stream(response_format=City, temperature=0, **asked) as events:
            for _ in events:
                pass
            final = events.get_final_completion().choices[0].message
        check("a stream fills it, too", isinstance(final.parsed, City), final)
        cut = raised(
            "a cut answer is reported", openai.LengthFinishReasonError,
            lambda: parse(response_format=City, temperature=0, **{**asked, "max_tokens": 2}),
        )
        check("with what came", cut.completion.choices[0].finish_reason == "length", cut)
        loose = {"type": "json_schema", "json_schema": {"name": "city", "schema": City.model_json_schema()}}
        text = text_of(self._chat(question, max_tokens=200, response_format=loose))
        check("a schema that is not strict is kept", City.model_validate_json(text), text)
        answer = self._chat(question, max_tokens=300, response_format={"type": "json_object"})
        is_cut = answer.choices[0].finish_reason == "length"
        check("json_object gives an object", is_cut or isinstance(json.loads(text_of(answer)), dict), answer)
        check("that begins like one", text_of(answer).lstrip().startswith("{"), text_of(answer))
        bad = {"type": "json_schema", "json_schema": {"name": "bad", "schema": {"type": "no such type"}}}
        error = raised(
            "a schema that is none is refused", openai.BadRequestError, lambda: self._chat(response_format=bad)
        )
        check("by its parameter", error.param and error.param.startswith("response_format"), error.param)

    def tools(self):
        forced = {"tools": [WEATHER, TIME], "tool_choice": "required", "max_tokens": 200}
        answer = self._chat(ASKED, parallel_tool_calls=False, **forced)
        message = answer.choices[0].message
        check("a required call comes, and one only", len(message.tool_calls or []) == 1, answer)
        check("and ends the answer", answer.choices[0].finish_reason == "tool_calls", answer)
        call = message.tool_calls[0]
        check("it has an id and a type", call.id and call.type == "function", call)
        check("and a known name", call.function.name in ("get_weather", "get_time"), call)
        name = {"type": "function", "function": {"name": "get_weather"}}
        answer = self._chat(ASKED, **{**forced, "tool_choice": name})
        message = answer.choices[0].message
        call = message.tool_calls[0]
        arguments = json.loads(call.function.arguments)
        check("a named tool is called", call.function.name == "get_weather", answer)
        is_valid = set(arguments) == {"city", "unit"} and arguments["unit"] in ("celsius", "fahrenheit")
        check("its arguments fit the schema", is_valid, arguments)

        chunks = list(self._chat(ASKED, stream=True, **{**forced, "tool_choice": name}))
        deltas = [
            delta for chunk in chunks for choice in chunk.choices for delta in choice.delta.tool_calls or []
        ]
        streamed = "".join(delta.function.arguments or "" for delta in deltas)
        check("a streamed call has the same arguments", streamed == call.function.arguments, streamed)
        heads = [delta for delta in deltas if delta.id]
        check("its first part has id and name", [head.function.name for head in heads] == ["get_weather"], deltas)
        check("its parts are numbered", all(delta.index == 0 for delta in deltas), deltas)
        ends = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
        check("and its reason is the same", ends == ["tool_calls"], ends)

        turns = [*ASKED, message, {"role": "tool", "tool_call_id": call.id, "content": "21 degrees, sunny"}]
        last = self._chat(turns, tools=[WEATHER, TIME], tool_choice="none")
        check("the conversation goes on with the result", text_of(last), last)
        check("with tool_choice none no tool is called", last.choices[0].message.tool_calls is None, last)
        free = self._chat(ASKED, tools=[WEATHER], max_tokens=100)
        is_known = free.choices[0].finish_reason in ("stop", "length", "tool_calls")
        check("left to the model, it calls or talks", is_known and free.choices[0].message.role == "assistant", free)
        allowed = {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "get_time"}}]},
        }
        answer = self._chat(ASKED, **{**forced, "tool_choice": allowed})
        names = {call.function.name for call in answer.choices[0].message.tool_calls}
        check("allowed tools are the only ones", names == {"get_time"}, names)

        answer = self.client.chat.completions.parse(
            model=self.model, messages=ASKED, max_tokens=200, temperature=0, tool_choice="required",
            tools=[openai.pydantic_function_tool(Weather)], parallel_tool_calls=False,
        )
        parsed = answer.choices[0].message.tool_calls[0].function.parsed_arguments
        check("a class is filled by a call", isinstance(parsed, Weather), answer)
        stray = {"type": "function", "function": {"name": "no_such_tool"}}
        raised(
            "a tool that is not there is refused", openai.BadRequestError,
            lambda: self._chat(ASKED, **{**forced, "tool_choice": stray}),
        )

    def completions(self):
        answer = self._complete(logprobs=0)
        choice = answer.choices[0]
        check("a text is continued", choice.text and answer.id.startswith("cmpl-"), answer)
        check("for so many tokens", answer.usage.completion_tokens == 8 and choice.finish_reason == "length", answer)
        default = self.client.completions.create(model=self.model, prompt="The capital", extra_body=ENDLESS)
        check("16 tokens unless said otherwise", default.usage.completion_tokens == 16, default.usage)
        chunks = list(self._complete(stream=True))
        text = "".join(each.text for chunk in chunks for each in chunk.choices)
        check("a stream has the same text", text == choice.text, text)

        echoed = self._complete(echo=True, logprobs=1, max_tokens=0).choices[0]
        lists = echoed.logprobs
        check("an echoed prompt comes alone", echoed.text == "The capital of France is", echoed)
        check("its first token has no score", lists.token_logprobs[0] is None, lists)
        check("the others have", all(score <= 0 for score in lists.token_logprobs[1:]), lists)
        both = self._complete(echo=True, logprobs=1).choices[0]
        check("prompt and answer come together", both.text == echoed.text + choice.text, both)
        scores = both.logprobs.token_logprobs
        parts = lists.token_logprobs + choice.logprobs.token_logprobs
        check("with the scores of both", scores == parts, (scores, parts))

        ids = lists.token_ids
        check("tokens are continued like their text", self._complete(ids).choices[0].text == choice.text, ids)
        for prompts in (["The capital of France is", "Two and two is"], [ids, ids[:3]]):
            several = self._complete(prompts, n=2, max_tokens=4)
            check("each prompt has its choices", [each.index for each in several.choices] == [0, 1, 2, 3], several)
            check("the first ones continue the first", choice.text.startswith(several.choices[1].text), several)
        word = choice.text.split()[-1]
        cut = self._complete(stop=word).choices[0]
        check("a stop string ends a text", cut.finish_reason == "stop" and word not in cut.text, cut)
        best = self._complete(best_of=2, n=1, temperature=1, seed=5).choices
        check("the best of two is one", len(best) == 1, best)

    def embeddings(self):
        def embed(texts, **more):
            answer = self.client.embeddings.create(model=self.model, input=texts, **more)
            return [entry.embedding for entry in answer.data]

        cat, other, tax = embed(["The cat sat on the mat.", "A cat was sitting on a mat.", "Tax law of 1974"])
        check("vectors have the length 1", abs(dot(cat, cat) - 1) < 1e-5, dot(cat, cat))
        check("texts of one meaning are nearer", dot(cat, other) > dot(cat, tax), (dot(cat, other), dot(cat, tax)))
        numbers = embed("The cat sat on the mat.", encoding_format="float")[0]
        check("one text as numbers has the same vector", max(abs(a - b) for a, b in zip(cat, numbers)) < 1e-7, numbers)
        short = embed("The cat sat on the mat.", dimensions=64)[0]
        check("fewer dimensions are normalised", len(short) == 64 and abs(dot(short, short) - 1) < 1e-5, short)
        error = raised("more than there are, are refused", openai.BadRequestError, lambda: embed("x", dimensions=10**6))
        check("  by their parameter", error.param == "dimensions", error.body)

    def models(self):
        models = list(self.client.models.list())
        check("the model is listed first", models[0].id == self.model, models)
        check("as a model", models[0].object == "model" and models[0].created > 0, models)
        one = self.client.models.retrieve(self.model)
        check("it can be looked up", one.id == self.model, one)
        raised("another one cannot", openai.NotFoundError, lambda: self.client.models.retrieve("no-such-model"))

    def errors(self):
        def refused(what, expected, call, code, param, words):
            error = raised(what, expected, call)
            check(f"  by code {code} and parameter {param}", (error.code, error.param) == (code, param), error.body)
            check(f"  with {words!r}", words in error.message, error.message)
            check("  and the request's id", error.request_id, error.response.headers)

        bad, missing = openai.BadRequestError, openai.NotFoundError
        create = self.client.chat.completions.create
        too_long = ("context_length_exceeded", "messages", "maximum context length")
        refused("an unknown model is refused", missing, lambda: create(model="gpt-4", messages=QUESTION),
                "model_not_found", "model", "gpt-4")
        refused("a prompt that is too long is refused", bad, lambda: self._chat(LONG), *too_long)
        refused("also in a stream", bad, lambda: self._chat(LONG, stream=True), *too_long)
        error = raised("a temperature of 3 is refused", bad, lambda: self._chat(temperature=3))
        check("  by its parameter", error.param == "temperature" and error.type == "invalid_request_error", error.body)
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
        error = raised(
            "an image is refused", bad, lambda: self._chat([{"role": "user", "content": [image]}])
        )
        check("  by its place", error.param and error.param.startswith("messages"), error.body)
        raised("no messages are refused", bad, lambda: self._chat([]))
        raised("pages that are not there are not found", missing, lambda: self.client.files.list())
        slow = self.client.with_options(timeout=0.05)
        raised(
            "a time limit ends a request", openai.APITimeoutError,
            lambda: slow.chat.completions.create(
                model=self.model, messages=QUESTION, max_tokens=2000, extra_body=ENDLESS
            ),
        )
        nowhere = self.client.with_options(base_url="http://127.0.0.1:9/v1")
        raised("an absent server is reported", openai.APIConnectionError, lambda: nowhere.models.list())
        check("the server goes on", text_of(self._chat(max_tokens=2)))

    def asynchronous(self):
        asyncio.run(self._asynchronous())

    async def _asynchronous(self):
        questions = [[{"role": "user", "content": f"What is {number} plus {number}?"}] for number in range(8)]
        alone = [text_of(self._chat(question)) for question in questions]
        async with openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=120
        ) as client:
            async def ask(question, **more):
                return await client.chat.completions.create(
                    model=self.model, messages=question, max_tokens=24, temperature=0, **more
                )

            answers = await asyncio.gather(*map(ask, questions))
            together = [text_of(answer) for answer in answers]
            check("eight at once have the answers of each alone", together == alone, (together, alone))
            stream = await ask(questions[0], stream=True)
            chunks = [chunk async for chunk in stream]
            check("a stream has the same text", pieces(chunks) == alone[0], pieces(chunks))
            task = asyncio.create_task(
                client.chat.completions.create(
                    model=self.model, messages=QUESTION, max_tokens=2000, extra_body=ENDLESS
                )
            )
            await asyncio.sleep(0.2)
            task.cancel()
            ended = (await asyncio.gather(task, return_exceptions=True))[0]
            check("a request can be cancelled", isinstance(ended, asyncio.CancelledError), ended)
            check("and the server goes on", text_of(await ask(questions[1])) == alone[1])


if __name__ == "__main__":
    run(Works, __doc__)
