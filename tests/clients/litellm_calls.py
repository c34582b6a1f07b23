#!/usr/bin/env python3
"""LiteLLM against a running baton, as a server of OpenAI's API and as one of vLLM's.

    python3 -m venv venv && venv/bin/pip install -r tests/clients/requirements.txt
    target/release/baton up
    venv/bin/python tests/clients/litellm_calls.py [--url URL] [--without WORK] [WORK ...]

WORK is one of the following; all of them unless said otherwise.

    chat           answers, counts, the asynchronous client
    stream         the same answers in pieces, put together
    tools          a forced call, in a stream too, and its result
    schema         JSON that fits a class
    completions    texts that are continued
    errors         refusals as LiteLLM's exceptions

Each line names what was checked. Exits with 1 at the first check that fails.
"""

import asyncio
import json
import os

from works import check, raised, run, served  # First, since it sets the environment that the others read.

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # Else it fetches a list of prices.

import litellm
from pydantic import BaseModel, Field

QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
ASKED = [{"role": "user", "content": "What is the weather in Paris? Use the tool."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
        },
    },
}


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)
    population: int = Field(ge=0, le=100_000_000)


def text_of(answer):
    return answer.choices[0].message.content


class Works:
    def __init__(self, url):
        self.model, _ = served(url)
        self.place = {"api_base": f"{url}/v1", "api_key": "none", "timeout": 120, "num_retries": 0}

    def _ask(self, messages=QUESTION, provider="openai", call=litellm.completion, max_tokens=24, **more):
        model = f"{provider}/{self.model}"
        return call(model=model, messages=messages, max_tokens=max_tokens, temperature=0, **self.place, **more)

    # --- the works ---

    def chat(self):
        answer = self._ask()
        check("an answer has text", text_of(answer), answer)
        check("and a reason", answer.choices[0].finish_reason in ("stop", "length"), answer)
        check("tokens are counted", answer.usage.completion_tokens > 0, answer.usage)
        check("vLLM's client has the same", text_of(self._ask(provider="hosted_vllm")) == text_of(answer))
        later = asyncio.run(self._ask(call=litellm.acompletion))
        check("the asynchronous client has the same", text_of(later) == text_of(answer), later)
        cut = self._ask(stop=[text_of(answer).split()[-1]])
        is_cut = text_of(answer).startswith(text_of(cut)) and text_of(cut) != text_of(answer)
        check("a stop string ends it", is_cut, cut)
        check("choices are counted", len(self._ask(n=2).choices) == 2)
        scored = self._ask(logprobs=True, top_logprobs=2, seed=1, presence_penalty=0.5, logit_bias={"5": -100})
        check("scores come", scored.choices[0].logprobs.content, scored)

    def stream(self):
        whole = self._ask()
        chunks = list(self._ask(stream=True, stream_options={"include_usage": True}))
        built = litellm.stream_chunk_builder(chunks, messages=QUESTION)
        check("a stream has the text of the whole answer", text_of(built) == text_of(whole), built)
        check("and its counts", built.usage.completion_tokens == whole.usage.completion_tokens, built.usage)
        check("and its reason", built.choices[0].finish_reason == whole.choices[0].finish_reason, built)

        async def pieces():
            stream = await self._ask(call=litellm.acompletion, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        text = asyncio.run(pieces())
        check("the asynchronous stream has the same", text == text_of(whole), text)

    def tools(self):
        name = {"type": "function", "function": {"name": "get_weather"}}
        forced = {"tools": [WEATHER], "tool_choice": name, "max_tokens": 100}
        message = self._ask(ASKED, **forced).choices[0].message
        call = message.tool_calls[0]
        arguments = json.loads(call.function.arguments)
        check("a forced call comes", call.function.name == "get_weather" and set(arguments) == {"city"}, message)
        built = litellm.stream_chunk_builder(list(self._ask(ASKED, stream=True, **forced)))
        streamed = built.choices[0].message.tool_calls[0]
        check("a stream has the same call", streamed.function == call.function, built)
        check("and ends by it", built.choices[0].finish_reason == "tool_calls", built)
        turns = [*ASKED, message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
        last = self._ask(turns, tools=[WEATHER], tool_choice="none")
        check("the conversation goes on with its result", text_of(last), last)
        required = self._ask(ASKED, **{**forced, "tool_choice": "required"})
        check("a required call comes", required.choices[0].message.tool_calls, required)

    def schema(self):
        question = [{"role": "user", "content": "Describe the city of Paris in JSON."}]
        for provider in ("openai", "hosted_vllm"):
            text = text_of(self._ask(question, provider=provider, response_format=City, max_tokens=100))
            check(f"a class is filled as {provider}", City.model_validate_json(text), text)

    def completions(self):
        more = {"model": f"text-completion-openai/{self.model}", "prompt": "The capital of France is"}
        answer = litellm.text_completion(**more, max_tokens=8, temperature=0, **self.place)
        check("a text is continued", answer.choices[0].text, answer)
        chunks = litellm.text_completion(**more, max_tokens=8, temperature=0, stream=True, **self.place)
        text = "".join(chunk.choices[0].text or "" for chunk in chunks)
        check("a stream has the same text", text == answer.choices[0].text, text)

    def errors(self):
        other = {"model": "openai/no-such-model", "messages": QUESTION}
        raised("an unknown model is not found", litellm.NotFoundError,
               lambda: litellm.completion(**other, **self.place))
        long = [{"role": "user", "content": "word " * 20_000}]
        raised("a long prompt exceeds the window", litellm.ContextWindowExceededError, lambda: self._ask(long))
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
        raised("an image is refused", litellm.BadRequestError,
               lambda: self._ask([{"role": "user", "content": [image]}]))
        raised("a time limit ends a request", litellm.Timeout,
               lambda: litellm.completion(
                   model=f"openai/{self.model}", messages=QUESTION, max_tokens=2000, extra_body={"ignore_eos": True},
                   **{**self.place, "timeout": 0.05},
               ))
        check("the server goes on", text_of(self._ask(max_tokens=2)))


if __name__ == "__main__":
    run(Works, __doc__)
