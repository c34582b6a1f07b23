#!/usr/bin/env python3
"""The OpenAI Agents SDK against a running baton: agents with tools, over both of OpenAI's APIs.

    python3 -m venv venv && venv/bin/pip install -r tests/clients/requirements.txt
    target/release/baton up
    venv/bin/python tests/clients/openai_agents.py [--url URL] [--without WORK] [WORK ...]

WORK is one of the following; all of them unless said otherwise.

    chat_completions    an agent with a tool over chat completions
    responses           the same over Responses
    structured          an agent whose result is a class, over both
    stream              events of a running agent, over both

Each line names what was checked. Exits with 1 at the first check that fails.
"""

import asyncio
from typing import Annotated

from works import check, run, served  # First, since it sets the environment that the others read.

import agents
import openai
from pydantic import BaseModel, Field

APIS = ("chat_completions", "responses")
QUESTION = "What is the weather in Paris? Use the tool."


class City(BaseModel):
    """A city."""

    name: str = Field(max_length=20)
    population: int = Field(ge=0, le=100_000_000)


class Works:
    def __init__(self, url):
        self.url = url
        self.model, _ = served(url)
        self.asked = []
        agents.set_tracing_disabled(True)

    def _run(self, api, started):
        """Runs what `started` returns, over one API."""
        async def bounded():
            async with openai.AsyncOpenAI(
                base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=120
            ) as client:
                agents.set_default_openai_client(client, use_for_tracing=False)
                agents.set_default_openai_api(api)
                return await started()

        return asyncio.run(bounded())

    def _agent(self, tool_choice=None, tools=(), **more):
        settings = agents.ModelSettings(
            temperature=0, max_tokens=100, tool_choice=tool_choice, parallel_tool_calls=False if tools else None
        )
        return agents.Agent(
            name="Assistant", instructions="Be brief.", model=self.model, model_settings=settings, tools=list(tools),
            **more,
        )

    def _weather(self):
        @agents.function_tool
        def get_weather(city: Annotated[str, Field(max_length=20)]) -> str:
            """Tells the weather of a city."""
            self.asked.append(city)
            return "It is sunny."

        return get_weather

    def _tool(self, api):
        self.asked.clear()
        weather = self._weather()
        # Without more, the SDK calls the model again until that answers without a tool.
        agent = self._agent("required", [weather], tool_use_behavior="stop_on_first_tool")
        result = self._run(api, lambda: agents.Runner.run(agent, QUESTION))
        check("the tool was called", len(self.asked) == 1 and isinstance(self.asked[0], str), self.asked)
        check("and its result is the agent's", result.final_output == "It is sunny.", result)
        turns = [*result.to_input_list(), {"role": "user", "content": "Thank you. Tell me in one sentence."}]
        talker = self._agent("none", [weather])
        last = self._run(api, lambda: agents.Runner.run(talker, turns))
        check("another run goes on with the result", last.final_output, last)
        if api == "responses":
            name = last.last_response_id
            later = self._run(api, lambda: agents.Runner.run(self._agent(), "Again.", previous_response_id=name))
            check("and a further one from its response", later.final_output, later)
        usage = last.context_wrapper.usage
        check("tokens are counted", usage.input_tokens > 0 and usage.output_tokens > 0, usage)

    # --- the works ---

    def chat_completions(self):
        self._tool("chat_completions")

    def responses(self):
        self._tool("responses")

    def structured(self):
        for api in APIS:
            agent = self._agent(output_type=City)
            result = self._run(api, lambda: agents.Runner.run(agent, "Describe the city of Paris."))
            check(f"a class is filled over {api}", isinstance(result.final_output, City), result)

    def stream(self):
        for api in APIS:
            agent = self._agent()

            async def collect():
                streamed = agents.Runner.run_streamed(agent, "What is the capital of France?")
                events = [event async for event in streamed.stream_events()]
                return events, streamed.final_output

            events, final = self._run(api, collect)
            raw = [event.data for event in events if event.type == "raw_response_event"]
            text = "".join(event.delta for event in raw if event.type == "response.output_text.delta")
            check(f"events come over {api}", len(raw) > 3, events)
            check("and their text is the result", text == final, (text, final))
            whole = self._run(api, lambda: agents.Runner.run(agent, "What is the capital of France?"))
            check("which is that without a stream", whole.final_output == final, whole)


if __name__ == "__main__":
    run(Works, __doc__)
