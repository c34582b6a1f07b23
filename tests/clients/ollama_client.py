#!/usr/bin/env python3
"""Ollama's Python client against a running baton: the calls that its users and chat programs make.

    python3 -m venv venv && venv/bin/pip install -r tests/clients/requirements.txt
    target/release/baton up
    venv/bin/python tests/clients/ollama_client.py [--url URL] [--without WORK] [WORK ...]

WORK is one of the following; all of them unless said otherwise.

    models       lists, details, the version, and requests to load the model
    chat         answers, counts, limits, stop strings, names with and without a tag
    stream       the same answers line by line, and a client that goes away
    generate     prompts with and without the template, and with a system message
    format       JSON, and JSON that fits a schema
    tools        a call of a tool and its result; needs a template that knows tools
    thinking     thinking on and off; a model that does not reason refuses it
    infill       a suffix; needs a vocabulary with tokens for filling in the middle
    embed        vectors of several texts and of one, by both of the client's calls
    errors       refusals as the client's exceptions

Works that need what the model lacks check that it is refused. Each line names what was checked. Exits with 1 at the
first check that fails.
"""

import json

from works import check, run  # First, since it sets the environment that the client reads.

import ollama

QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
GREEDY = {"temperature": 0, "num_predict": 40}
REASONS = ("stop", "length")
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The city's name"}},
            "required": ["city"],
        },
    },
}


def dot(one, other):
    return sum(a * b for a, b in zip(one, other))


class Works:
    def __init__(self, url):
        self.client = ollama.Client(host=url)
        self.model = self.client.list().models[0].model
        self.able = self.client.show(self.model).capabilities

    def ask(self, messages=QUESTION, options=None, **more):
        return self.client.chat(model=self.model, messages=messages, options={**GREEDY, **(options or {})}, **more)

    def complete(self, prompt, options=None, **more):
        return self.client.generate(model=self.model, prompt=prompt, options={**GREEDY, **(options or {})}, **more)

    def refused(self, what, status, words, call):
        try:
            found = call()
            found = list(found) if not isinstance(found, (ollama.ChatResponse, ollama.GenerateResponse)) else found
        except ollama.ResponseError as error:
            found = error
        is_refused = isinstance(found, ollama.ResponseError)
        check(what, is_refused and found.status_code == status, repr(found))
        check(f"  with {words!r}", words in found.error, found.error)

    # --- the works ---

    def models(self):
        listed = self.client.list().models
        check("one model is listed, with a tag", len(listed) == 1 and listed[0].model.endswith(":latest"), listed)
        check("with its size and digest", listed[0].size > 0 and listed[0].digest, listed[0])
        details = listed[0].details
        check("and its family", details.format == "gguf" and details.families == [details.family], details)
        shown = self.client.show(self.model)
        length = shown.modelinfo[f"{details.family}.context_length"]
        check("its details have the length of the context", length > 0, shown.modelinfo)
        check("and what it can do", "completion" in shown.capabilities, shown.capabilities)
        check("and its template", "message" in shown.template, shown.template)
        served = self.client.ps().models
        check("it is served", [model.model for model in served] == [self.model], served)
        check("with that context", served[0].context_length == length, served[0])
        loaded = self.client.chat(model=self.model, messages=[])
        check("a chat without messages loads", loaded.done and loaded.done_reason == "load", loaded)
        loaded = self.client.generate(model=self.model, keep_alive="5m")
        check("and so does an empty prompt", loaded.done and loaded.done_reason == "load", loaded)

    def chat(self):
        answer = self.ask()
        check("an answer has text and a role", answer.message.content and answer.message.role == "assistant", answer)
        check("it is done for a reason", answer.done and answer.done_reason in REASONS, answer)
        check("its model is named as it was asked", answer.model == self.model, answer.model)
        check("tokens are counted", answer.prompt_eval_count > 0 and answer.eval_count > 0, answer)
        times = [getattr(answer, name) for name in DURATIONS]
        check("times are in nanoseconds", times[0] >= times[2] + times[3] > 1_000_000, times)
        check("the same question has the same answer", self.ask().message.content == answer.message.content)

        bare = self.model.removesuffix(":latest")
        untagged = self.client.chat(model=bare, messages=QUESTION, options=GREEDY)
        check("the tag may be left out", untagged.message.content == answer.message.content, untagged)
        one = self.ask(options={"num_predict": 1})
        check("a limit of one token is kept", (one.eval_count, one.done_reason) == (1, "length"), one)
        stop = answer.message.content.split()[-1]
        cut = self.ask(options={"stop": ["never said", stop]})
        is_cut = answer.message.content.startswith(cut.message.content) and stop not in cut.message.content
        check("a stop string ends the text", is_cut and cut.done_reason == "stop", cut)
        seeded = [self.ask(options={"temperature": 1.5, "seed": 7}).message.content for _ in range(2)]
        check("a seed repeats an answer", seeded[0] == seeded[1], seeded)
        everything = {
            "num_keep": 4, "seed": 1, "num_predict": 8, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "typical_p": 0.7,
            "repeat_last_n": 33, "temperature": 0.8, "repeat_penalty": 1.2, "presence_penalty": 1.5,
            "frequency_penalty": 1.0, "penalize_newline": True, "num_ctx": 1024, "num_batch": 2, "num_gpu": 1,
            "main_gpu": 0, "use_mmap": True, "num_thread": 8,
        }
        check("every option is taken", self.ask(options=everything).done)
        turns = [
            {"role": "system", "content": "Be brief."},
            *QUESTION,
            {"role": "assistant", "content": "Paris."},
            {"role": "user", "content": "And of Italy?"},
        ]
        check("a conversation goes on", self.ask(turns, keep_alive=-1).message.content)
        prefill = [*QUESTION, {"role": "assistant", "content": "The capital is"}]
        continued = self.ask(prefill).message.content
        check("a begun answer is continued", continued and not continued.startswith("The capital is"), continued)
        logprobs = self.ask(logprobs=True).logprobs
        check("log-probabilities come", logprobs and all(each.logprob <= 0 for each in logprobs), logprobs)

    def stream(self):
        whole = self.ask()
        lines = list(self.ask(stream=True))
        text = "".join(line.message.content for line in lines)
        check("a stream has the text of the whole answer", text == whole.message.content, text)
        check("only its last line is done", [line.done for line in lines].index(True) == len(lines) - 1, lines[-1])
        same = [getattr(lines[-1], name) == getattr(whole, name) for name in ("eval_count", "prompt_eval_count")]
        check("with the counts of the whole answer", all(same), lines[-1])
        check("there are several lines", len(lines) > 3, len(lines))
        stream = self.ask(stream=True, options={"num_predict": 400})
        next(stream)
        stream.close()
        check("the server goes on after a client went away", self.ask(options={"num_predict": 4}).done)

    def generate(self):
        answer = self.complete("What is the capital of France? Answer in one sentence.")
        check("a prompt is answered as a chat", answer.response == self.ask().message.content, answer)
        check("and counted", answer.eval_count > 0 and answer.prompt_eval_count > 0, answer)
        system = self.complete("Hello.", system="Answer with the single word yes.")
        plain = self.complete("Hello.")
        check("a system message makes the prompt longer", system.prompt_eval_count != plain.prompt_eval_count, system)
        raw = self.complete("The capital of France is", raw=True)
        check("a raw prompt is continued without a template", raw.prompt_eval_count < plain.prompt_eval_count, raw)
        lines = list(self.complete("The capital of France is", raw=True, stream=True))
        check("and streamed", "".join(line.response for line in lines) == raw.response, lines)

    def format(self):
        question = [{"role": "user", "content": "Name a city and its population. Answer in JSON."}]
        answer = self.ask(question, format="json", options={"num_predict": 200})
        check("JSON is an object", answer.done_reason == "length" or json.loads(answer.message.content), answer)
        schema = {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "large": {"type": "boolean"}},
            "required": ["city", "large"],
            "additionalProperties": False,
        }
        found = json.loads(self.ask(question, format=schema, options={"num_predict": 200}).message.content)
        check("and fits a schema", set(found) == {"city", "large"} and isinstance(found["large"], bool), found)

    def tools(self):
        question = [{"role": "user", "content": "What is the weather in Paris? Use the tool."}]
        if "tools" not in self.able:
            self.refused("tools are refused", 400, "tools", lambda: self.ask(question, tools=[WEATHER]))
            return
        answer = self.ask(question, tools=[WEATHER], options={"num_predict": 200})
        calls = answer.message.tool_calls or []
        print(f"      {self.model} {'calls the tool' if calls else 'answers without the tool'}", flush=True)
        is_object = all(isinstance(call.function.arguments, dict) for call in calls)
        check("arguments are objects", is_object, answer)
        lines = self.ask(question, tools=[WEATHER], options={"num_predict": 200}, stream=True)
        streamed = [call for line in lines for call in line.message.tool_calls or []]
        check("a stream has the same calls", streamed == list(calls), streamed)
        call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
        turns = [
            *question,
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_name": "get_weather", "content": "21 degrees"},
        ]
        check("the conversation goes on with the result", self.ask(turns, tools=[WEATHER]).done)

    def thinking(self):
        if "thinking" not in self.able:
            self.refused("thinking is refused", 400, "thinking", lambda: self.ask(think=True))
            check("and not needed", self.ask(think=False).message.content)
            return
        more = {"num_predict": 1000}
        answer = self.ask(think=True, options=more)
        check("thinking is apart from the answer", answer.message.thinking, answer)
        lines = list(self.ask(think=True, options=more, stream=True))
        text = "".join(line.message.thinking or "" for line in lines)
        check("also in a stream", text == answer.message.thinking, text)
        check("it can be switched off", not self.ask(think=False, options=more).message.thinking)
        generated = self.complete("What is 2 + 2?", think="low", options=more)
        check("a level is taken", generated.done, generated)

    def infill(self):
        code = ("def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n")
        if "insert" not in self.able:
            self.refused("a suffix is refused", 400, "fill in", lambda: self.complete(code[0], suffix=code[1]))
            return
        answer = self.complete(code[0], suffix=code[1])
        check("a gap is filled", answer.response.strip(), answer)

    def embed(self):
        answer = self.client.embed(model=self.model, input=["Why is the sky blue?", "Why is the grass green?"])
        sky, grass = answer.embeddings
        check("each text has a vector of length 1", all(abs(dot(one, one) - 1) < 1e-5 for one in (sky, grass)), answer)
        check("they differ", dot(sky, grass) < 0.9999, dot(sky, grass))
        check("their tokens are counted", answer.prompt_eval_count > 8 and answer.total_duration > 0, answer)
        old = self.client.embeddings(model=self.model, prompt="Why is the sky blue?").embedding
        check("the older call has the same vector", list(old) == list(sky), old)

    def errors(self):
        missing = self.client.chat
        self.refused(
            "an unknown model is refused", 404, "does not exist", lambda: missing(model="no-such", messages=QUESTION)
        )
        image = [{"role": "user", "content": "What is it?", "images": ["aGVsbG8="]}]
        self.refused("an image is refused", 400, "Images", lambda: self.ask(image))
        template = "{{ .Prompt }}"
        self.refused("a template is refused", 400, "template", lambda: self.complete("Hi", template=template))
        self.refused("a wrong option is refused", 400, "top_p", lambda: self.ask(options={"top_p": 3}))
        long = [{"role": "user", "content": "word " * 200_000}]
        self.refused("a prompt that is too long is refused", 400, "maximum context", lambda: self.ask(long))
        self.refused("also in a stream", 400, "maximum context", lambda: self.ask(long, stream=True))
        self.refused("models cannot be pulled", 404, "No page", lambda: self.client.pull("llama3"))


if __name__ == "__main__":
    run(Works, __doc__)
