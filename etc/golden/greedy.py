"""Makes tests/data/smollm2_greedy.json: chat prompts and llama.cpp's greedy continuations of them.

Usage: python greedy.py MODEL.gguf > ../../tests/data/smollm2_greedy.json

`ids` is the rendered prompt (the model's own template, rendered by jinja2), `tokens` the 64 most probable tokens one
after the other, going on past end-of-turn tokens; `answer` is how many of them come before the first such token (64 if
there is none). `gaps` is, for each token, how far its logit was above the runner-up's, and `runners_up` that token: a
different choice where the gap is within rounding is no error, but what follows it cannot be compared.
"""

import json
import sys

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from reference import Reference, versions

TOKENS = 64

LONG = (
    "The lighthouse stood at the end of a narrow spit of land. Every evening the keeper climbed the hundred and twelve "
    "steps with a can of oil, trimmed the wick, wound the clockwork and wrote the weather into a ruled book. In winter "
    "the spray froze on the panes and he scraped it away with a brass blade that his father had used before him. Ships "
    "passed far out and never knew his name. One night in November the clockwork stopped, and he turned the great lens "
    "by hand until morning, counting under his breath so that the flashes would come at the right moment. "
)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


PROMPTS = [
    ("one word", [user("What is the capital of France? Answer in one word.")]),
    ("greeting", [user("Hi")]),
    ("a single question mark", [user("?")]),
    ("arithmetic", [user("What is 17 + 25? Reply with the number only.")]),
    ("list", [user("List five fruits, one per line.")]),
    ("explain", [user("Explain in two sentences why the sky is blue.")]),
    ("python", [user("Write a Python function that returns the n-th Fibonacci number.")]),
    ("fix rust", [user(
        "What is wrong with this code?\n\n"
        "```rust\nfn main() {\n\tlet x: u8 = 256;\n    println!(\"{x}\");\n}\n```"
    )]),
    ("json", [user('Turn "Ada, 36, London" into JSON with the keys "name", "age" and "city".')]),
    ("emoji", [user("What do these emoji mean? 🎉🚀 👩‍👩‍👧‍👦 🇫🇷")]),
    ("chinese", [user("请用一句话介绍北京。")]),
    ("japanese", [user("「猫」を英語で言うと何ですか?")]),
    ("french", [user("Traduis en anglais : « Où est la bibliothèque ? »")]),
    ("arabic", [user("ما هي عاصمة مصر؟")]),
    ("system", [system("You are a pirate. Answer like one."), user("How is the weather today?")]),
    ("empty system", [system(""), user("Say hello.")]),
    (
        "turns",
        [
            user("My name is Robin and I like chess."),
            assistant("Nice to meet you, Robin! Chess is a great game."),
            user("What is my name, and which game do I like?"),
        ],
    ),
    (
        "system and turns",
        [
            system("Answer with a single number."),
            user("How many legs has a spider?"),
            assistant("8"),
            user("And an ant?"),
            assistant("6"),
            user("And a dog?"),
        ],
    ),
    ("white space", [user("  Rewrite neatly:\n\n\n   one,two   ,three ;\t\tfour    \n")]),
    ("long", [user(LONG * 4 + "\n\nSummarise the story above in one sentence.")]),
]


def main(path):
    reference = Reference(path, context_tokens=2048)
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(reference.template())
    ends = reference.ends()
    cases = []
    for name, messages in PROMPTS:
        prompt = template.render(messages=messages, add_generation_prompt=True)
        ids = reference.tokenize(prompt, parse_special=True)
        reference.clear()
        row = reference.decode(ids, 0, every=False)[0]
        tokens, gaps, runners_up = [], [], []
        while True:
            runner_up, best = row.argsort()[-2:]
            tokens.append(int(best))
            runners_up.append(int(runner_up))
            gaps.append(round(float(row[best]) - float(row[runner_up]), 4))
            if len(tokens) == TOKENS:
                break
            row = reference.decode([int(best)], len(ids) + len(tokens) - 1, every=False)[0]
        answer = next((place for place, token in enumerate(tokens) if token in ends), TOKENS)
        text = b"".join(reference.piece(token, special=False) for token in tokens[:answer])
        cases.append(
            {
                "name": name,
                "messages": messages,
                "prompt": prompt,
                "ids": ids,
                "tokens": tokens,
                "answer": answer,
                "text": text.decode(errors="replace"),
                "gaps": gaps,
                "runners_up": runners_up,
            }
        )
        print(name, answer, min(gaps), repr(text.decode(errors="replace"))[:90], file=sys.stderr)
    made = {
        **versions(path),
        "jinja2": jinja2.__version__,
        "settings": "CPU, 1 thread, f16 KV, no flash attention, prompt in batches of 512, then token by token",
    }
    print("{")
    print(f' "made_with": {json.dumps(made)},')
    print(f' "stop_tokens": {json.dumps(ends)},')
    print(' "cases": [')
    print(",\n".join("  " + json.dumps(case, ensure_ascii=False) for case in cases))
    print(" ]\n}")


main(sys.argv[1])
