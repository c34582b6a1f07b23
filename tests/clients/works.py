"""The frame of the scripts in this folder: what they are called with, how they check, and their environment.

A script defines a class `Works`. It is made with the server's URL; its methods without parameters are the works. Import
this module before the client library, since libraries read the environment when they are imported.
"""

import argparse
import inspect
import json
import os
import sys
import urllib.request

# Settings of this machine that would send requests elsewhere.
for name in list(os.environ):
    if name.startswith(("ANTHROPIC_", "LANGCHAIN_", "LANGSMITH_", "LITELLM_", "LLM_", "OLLAMA_", "OPENAI_")):
        del os.environ[name]
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


def check(what, condition, found=""):
    """Prints what was checked. Ends the script with 1 if the condition does not hold."""
    print(f"{'ok  ' if condition else 'FAIL'}  {what}", flush=True)
    if not condition:
        print(f"      found: {found}", flush=True)
        sys.exit(1)


def raised(what, expected, call):
    """Checks that the call raises the expected exception, and returns it."""
    try:
        found = call()
    except Exception as error:  # The check reports every other one.
        found = error
    check(what, isinstance(found, expected), repr(found))
    return found


def served(url):
    """The model's name and its aliases."""
    with urllib.request.urlopen(f"{url}/v1/models") as answer:
        models = json.load(answer)["data"]
    return models[0]["id"], [model["id"] for model in models[1:]]


def names(works):
    """The works that a class defines, in the order of its text."""
    methods = ((name, method) for name, method in vars(works).items() if inspect.isfunction(method))
    return [
        name for name, method in methods
        if not name.startswith("_") and list(inspect.signature(method).parameters) == ["self"]
    ]


def run(works, description):
    """Runs the works that the command line names, or all."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", metavar="WORK", nargs="*", choices=[*names(works), []])
    parser.add_argument("--url", default="http://127.0.0.1:8100", help="of the running baton")
    parser.add_argument("--without", metavar="WORK", action="append", default=[], choices=names(works))
    arguments = parser.parse_args()
    made = works(arguments.url)
    for name in arguments.works or names(works):
        if name not in arguments.without:
            print(f"--- {name}", flush=True)
            getattr(made, name)()
