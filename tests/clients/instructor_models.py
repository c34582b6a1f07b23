#!/usr/bin/env python3
"""instructor against a running baton: classes of pydantic, filled by the model.

    python3 -m venv venv && venv/bin/pip install -r tests/clients/requirements.txt
    target/release/baton up
    venv/bin/python tests/clients/instructor_models.py [--url URL] [--without WORK] [WORK ...]

WORK is one of the following; all of them unless said otherwise.

    tools           filled by a call of a tool, which is instructor's default
    schema          filled by a JSON schema as the answer's format
    partial         filled bit by bit while the answer is streamed
    asynchronous    the asynchronous client

Each line names what was checked. Exits with 1 at the first check that fails.
"""

import asyncio
from typing import Literal

from works import check, run, served  # First, since it sets the environment that the others read.

import instructor
import openai
from pydantic import BaseModel, Field

QUESTION = [{"role": "user", "content": "Jason is 25 years old and lives in a large city called Paris. Extract that."}]


class Place(BaseModel):
    """A place."""

    name: str = Field(max_length=20)
    size: Literal["small", "large"]


class Person(BaseModel):
    """A person with the place of living."""

    name: str = Field(max_length=20, description="First name")
    age: int = Field(ge=0, le=150)
    place: Place


class Works:
    def __init__(self, url):
        self.place = {"base_url": f"{url}/v1", "api_key": "none", "max_retries": 0, "timeout": 120}
        self.model, _ = served(url)
        self.asked = {"messages": QUESTION, "max_tokens": 150, "temperature": 0, "max_retries": 0}

    def _client(self, mode):
        return instructor.from_openai(openai.OpenAI(**self.place), mode=mode, model=self.model)

    def _fill(self, mode, **more):
        found, answer = self._client(mode).create_with_completion(response_model=Person, **self.asked, **more)
        check("a class is filled", isinstance(found, Person), answer)
        check("with another one in it", isinstance(found.place, Place), found)
        return answer

    # --- the works ---

    def tools(self):
        answer = self._fill(instructor.Mode.TOOLS)
        check("by a call", answer.choices[0].message.tool_calls[0].function.name == "Person", answer)
        self._fill(instructor.Mode.TOOLS, strict=True)

    def schema(self):
        answer = self._fill(instructor.Mode.JSON_SCHEMA)
        check("by the text", Person.model_validate_json(answer.choices[0].message.content), answer)

    def partial(self):
        for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
            whole = self._client(mode).create(response_model=Person, **self.asked)
            parts = list(self._client(mode).create_partial(response_model=Person, **self.asked))
            check(f"{mode.name}: parts come", len(parts) > 2, parts)
            check("and end with the whole", parts[-1].model_dump() == whole.model_dump(), parts[-1])

    def asynchronous(self):
        async def fill():
            client = instructor.from_openai(openai.AsyncOpenAI(**self.place), model=self.model)
            return await asyncio.gather(*(client.create(response_model=Person, **self.asked) for _ in range(3)))

        found = asyncio.run(fill())
        check("three at once are filled", all(isinstance(each, Person) for each in found), found)
        # instructor makes a class of its own for each call, so that objects of two calls are never equal.
        values = [each.model_dump() for each in found]
        check("and alike", values[0] == values[1] == values[2], values)


if __name__ == "__main__":
    run(Works, __doc__)
