#!/usr/bin/env python3
"""The command `llm` against a running baton, configured by extra-openai-models.yaml as its documents say.

    python3 -m venv venv && venv/bin/pip install -r tests/clients/requirements.txt
    target/release/baton up
    venv/bin/python tests/clients/llm_command.py [--url URL] [--without WORK] [WORK ...]

WORK is one of the following; all of them unless said otherwise.

    chat       prompts, system prompts, streamed or not, conversations, counts
    schema     answers that fit a schema
    tools      a tool that the model may call
    options    the options that llm knows
    errors     refusals on its standard error

Each line names what was checked. Exits with 1 at the first check that fails.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from works import check, run, served

MODELS = """
- model_id: baton
  model_name: {model}
  api_base: {url}/v1
  supports_schema: true
  supports_tools: true
- model_id: baton-text
  model_name: {model}
  api_base: {url}/v1
  completion: true
- model_id: baton-responses
  model_name: {model}
  api_base: {url}/v1
  responses: true
- model_id: baton-other
  model_name: no-such-model
  api_base: {url}/v1
"""
SECONDS_MAX = 120


class Works:
    def __init__(self, url):
        self.folder = tempfile.TemporaryDirectory()
        model, _ = served(url)
        pathlib.Path(self.folder.name, "extra-openai-models.yaml").write_text(MODELS.format(model=model, url=url))

    def _command(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "llm", *arguments], capture_output=True, text=True, timeout=SECONDS_MAX,
            stdin=subprocess.DEVNULL, env={**os.environ, "LLM_USER_PATH": self.folder.name},
        )

    def _ask(self, *arguments, model="baton", max_tokens=24):
        ended = self._command("-m", model, "-o", "temperature", "0", "-o", "max_tokens", str(max_tokens), *arguments)
        check(f"llm {' '.join(arguments)!r} ends well", ended.returncode == 0, ended.stderr)
        return ended.stdout

    # --- the works ---

    def chat(self):
        listed = self._command("models").stdout
        check("the model is listed", "baton" in listed, listed)
        question = "What is the capital of France?"
        text = self._ask(question)
        check("a prompt is answered", text.strip(), text)
        check("without a stream, too", self._ask("--no-stream", question) == text, text)
        check("and by the asynchronous client", self._ask("--async", question) == text, text)
        check("a system prompt is taken", self._ask("--system", "Answer in one word.", question).strip())
        self._ask("--log", question)
        check("a conversation goes on", self._ask("--continue", "And of Italy?").strip())
        counted = self._command("-m", "baton", "-u", "--no-log", "-o", "max_tokens", "4", question)
        check("tokens are counted", "input" in counted.stderr and "output" in counted.stderr, counted)
        check("a text is continued", self._ask("The capital of France is", model="baton-text", max_tokens=8).strip())
        check("Responses answer", self._ask(question, model="baton-responses").strip())

    def schema(self):
        schema = {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "maximum": 150}},
            "required": ["name", "age"],
            "additionalProperties": False,
        }
        text = self._ask("--schema", json.dumps(schema), "Invent a dog.", max_tokens=100)
        check("an answer fits its schema", set(json.loads(text)) == {"name", "age"}, text)

    def tools(self):
        text = self._ask("--tool", "llm_version", "--td", "Which version of llm is this?", max_tokens=60)
        check("a tool is offered", isinstance(text, str), text)

    def options(self):
        options = {
            "seed": "7", "top_p": "0.9", "frequency_penalty": "0.5", "presence_penalty": "0.5", "stop": "\n\n",
            "logit_bias": '{"5": -100}',
        }
        for name, value in options.items():
            self._ask("-o", name, value, "Hello", max_tokens=4)
        text = self._ask("-o", "json_object", "1", "Name a city in JSON.", max_tokens=200)
        check("JSON is asked for", text.lstrip().startswith("{"), text)
        self._ask("-o", "logprobs", "2", "The capital of France is", model="baton-text", max_tokens=4)

    def errors(self):
        ended = self._command("-m", "baton-other", "Hello")
        check("an unknown model is refused", ended.returncode == 1 and "no-such-model" in ended.stderr, ended)
        ended = self._command("-m", "baton", "word " * 20_000)
        check("a long prompt is refused", ended.returncode == 1 and "maximum context length" in ended.stderr, ended)


if __name__ == "__main__":
    run(Works, __doc__)
