#!/usr/bin/env python3
"""LangChain's ChatOpenAI against a running baton.

    python3 -m venv venv && venv/bin/pip install -r tests/clients/requirements.txt
    target/release/baton up
    venv/bin/python tests/clients/langchain_chat.py [--url URL] [--without WORK] [WORK ...]

WORK is one of the following; all of them unless said otherwise.

    standard      LangChain's own integration tests for chat models, with tools; it says which it leaves out
    tools         a forced call and its result, bound tools in a stream
    structured    classes filled by a schema and by a call
    responses     the same client over OpenAI's Responses
    errors        refusals as LangChain's exceptions

Each line names what was checked. Exits with 1 at the first check that fails.
"""

import os
import sys

from works import check, raised, run, served  # First, since it sets the environment that the others read.

import pytest
from langchain_core.exceptions import ContextOverflowError, ModelNotFoundError
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from pydantic import BaseModel, Field

# The variable in which the standard tests, which pytest imports anew, find the server.
URL_VARIABLE = "CLIENT_TEST_URL"
QUESTION = "What is the weather in Paris? Use the tool."
# Parts of the names of standard tests that need what a text model does not have, recorded answers, or a model that
# keeps to a schema that it is only told of.
LEFT_OUT = ("image", "pdf", "audio", "anthropic_inputs", "stream_time", "json_mode")


def parameters(url):
    """What ChatOpenAI is made with."""
    return {
        "base_url": f"{url}/v1", "api_key": "none", "model": served(url)[0], "temperature": 0, "max_tokens": 100,
        "timeout": 120, "max_retries": 0,
    }


class CallingChatOpenAI(ChatOpenAI):
    """A model that calls one of its tools unless told otherwise: small models do not choose well."""

    def bind_tools(self, tools, *, tool_choice=None, parallel_tool_calls=False, **more):
        choice = tool_choice or "required"
        return super().bind_tools(tools, tool_choice=choice, parallel_tool_calls=parallel_tool_calls, **more)


class TestChatOpenAI(ChatModelIntegrationTests):
    """LangChain's integration tests, as each of its partners runs them."""

    @property
    def chat_model_class(self):
        return CallingChatOpenAI

    @property
    def chat_model_params(self):
        # Greedy answers of a small model repeat themselves without end unless repetitions are penalised.
        unbounded = {"max_tokens": 400, "extra_body": {"dry_multiplier": 0.8}}
        return {**parameters(os.environ[URL_VARIABLE]), "stream_usage": True, **unbounded}

    @property
    def model_override_value(self):
        return self.chat_model_params["model"]


class Outcomes:
    """A plugin of pytest that collects which tests were left out."""

    def __init__(self):
        self.passed = 0
        self.left_out = []

    def pytest_runtest_logreport(self, report):
        if report.skipped:
            self.left_out.append(report.nodeid.split("::")[-1])
        elif report.when == "call" and report.passed:
            self.passed += 1


@tool
def get_weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"It is sunny in {city}."


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)
    population: int = Field(ge=0, le=100_000_000)


class Works:
    def __init__(self, url):
        self.url = url
        self.parameters = parameters(url)
        self.model = ChatOpenAI(**self.parameters)

    # --- the works ---

    def standard(self):
        os.environ[URL_VARIABLE] = self.url
        outcomes = Outcomes()
        options = ["--quiet", "--tb=short", "-rs", "-p", "no:cacheprovider", "--disable-recording"]
        # One event loop for all, since the clients share their connections.
        options += ["-o", "asyncio_mode=auto", "-o", "asyncio_default_test_loop_scope=session"]
        status = pytest.main([*options, f"{__file__}::TestChatOpenAI"], plugins=[outcomes])
        sys.stdout.flush()
        check("LangChain's integration tests pass", status == 0, status)
        check("and there are many of them", outcomes.passed >= 30, outcomes.passed)
        others = [name for name in outcomes.left_out if not any(part in name for part in LEFT_OUT)]
        check("none is left out that a text model can do", not others, others)

    def tools(self):
        forced = self.model.bind_tools([get_weather], tool_choice="get_weather")
        message = forced.invoke(QUESTION)
        call = message.tool_calls[0]
        check("a forced call comes", call["name"] == "get_weather" and call["id"], message)
        check("its argument is a text", isinstance(call["args"]["city"], str), call)
        whole = None
        for chunk in forced.stream(QUESTION):
            whole = chunk if whole is None else whole + chunk
        check("a stream has the same call", whole.tool_calls[0]["args"] == call["args"], whole)
        result = get_weather.invoke(call)
        check("the call runs the tool", isinstance(result, ToolMessage), result)
        talking = self.model.bind_tools([get_weather], tool_choice="none")
        last = talking.invoke([HumanMessage(QUESTION), message, result])
        check("the conversation goes on with its result", isinstance(last, AIMessage) and last.text, last)

    def structured(self):
        for method in ("json_schema", "function_calling"):
            filled = self.model.with_structured_output(City, method=method, strict=True)
            found = filled.invoke("Describe the city of Paris.")
            check(f"a class is filled by {method}", isinstance(found, City), found)
            last = None
            for last in filled.stream("Describe the city of Paris."):
                pass
            check("also in a stream", last == found, last)
        raw = self.model.with_structured_output(City, include_raw=True).invoke("Describe the city of Paris.")
        check("the raw answer comes on demand", isinstance(raw["raw"], AIMessage) and raw["parsed"], raw)
        scored = self.model.bind(logprobs=True, top_logprobs=2).invoke("Hello")
        check("scores come on demand", scored.response_metadata["logprobs"]["content"], scored)

    def responses(self):
        model = ChatOpenAI(**self.parameters, use_responses_api=True)
        message = model.invoke("What is the capital of France?")
        check("an answer has text", message.text, message)
        check("and counts", message.usage_metadata["output_tokens"] > 0, message.usage_metadata)
        chunks = list(model.stream("What is the capital of France?"))
        text = "".join(chunk.text for chunk in chunks)
        check("a stream has the same text", text == message.text, text)
        message = model.bind_tools([get_weather], tool_choice="get_weather").invoke(QUESTION)
        check("a forced call comes", message.tool_calls[0]["name"] == "get_weather", message)
        turns = [HumanMessage(QUESTION), message, get_weather.invoke(message.tool_calls[0])]
        check("the conversation goes on with its result", isinstance(model.invoke(turns), AIMessage))

    def errors(self):
        other = ChatOpenAI(**{**self.parameters, "model": "no-such-model"})
        raised("an unknown model is not found", ModelNotFoundError, lambda: other.invoke("Hello"))
        raised("a long prompt exceeds the context", ContextOverflowError, lambda: self.model.invoke("word " * 20_000))


if __name__ == "__main__":
    run(Works, __doc__)
