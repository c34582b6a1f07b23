#!/usr/bin/env python3
"""Cost of open dashboards: tokens a second of 8 streams without and with 50 streams of events, in turns.

    python3 benches/dashboards.py URL [--dashboards N] [--streams N] [--rounds N] [--seconds N]

URL is that of a running gateway, such as http://127.0.0.1:8100. Prints the tokens a second of each turn, as
`baton_generated_tokens_total` counts them, the bytes of events that each dashboard got, and the cost: the median of the
turns' ratios. Without API keys.
"""

import argparse
import json
import statistics
import threading
import time
import urllib.request

SETTLE_S = 1  # Dashboards have got their whole state then.


class Stream(threading.Thread):
    """Asks for one answer after the other."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.ended = url, False

    def run(self):
        text = {"role": "user", "content": "Tell a long story."}
        body = {"messages": [text], "max_tokens": 400, "ignore_eos": True, "stream": True, "model": model(self.url)}
        while not self.ended:
            request = urllib.request.Request(f"{self.url}/v1/chat/completions", json.dumps(body).encode())
            request.add_header("content-type", "application/json")
            with urllib.request.urlopen(request, timeout=600) as answer:
                while not self.ended and answer.read1(65536):
                    pass


class Dashboard(threading.Thread):
    """Reads events, as a browser does."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.answer = urllib.request.urlopen(f"{url}/distributed/events", timeout=60)
        self.bytes, self.ended = 0, False

    def run(self):
        while not self.ended:
            piece = self.answer.read1(65536)
            if not piece:
                return
            self.bytes += len(piece)
        self.answer.close()


def read(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def model(url):
    return json.loads(read(f"{url}/v1/models"))["data"][0]["id"]


def generated(url):
    lines = read(f"{url}/metrics").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("baton_generated_tokens_total "))


def turn(url, seconds):
    before, began = generated(url), time.monotonic()
    time.sleep(seconds)
    return (generated(url) - before) / (time.monotonic() - began)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("url")
    for name, default in [("dashboards", 50), ("streams", 8), ("rounds", 4), ("seconds", 8)]:
        options.add_argument(f"--{name}", type=int, default=default)
    options = options.parse_args()
    streams = [Stream(options.url) for _ in range(options.streams)]
    for stream in streams:
        stream.start()
    time.sleep(3 * SETTLE_S)
    ratios = []
    for _ in range(options.rounds):
        without = turn(options.url, options.seconds)
        dashboards = [Dashboard(options.url) for _ in range(options.dashboards)]
        for dashboard in dashboards:
            dashboard.start()
        time.sleep(SETTLE_S)
        beside = turn(options.url, options.seconds)
        got = sum(dashboard.bytes for dashboard in dashboards) / len(dashboards)
        for dashboard in dashboards:
            dashboard.ended = True
        for dashboard in dashboards:
            dashboard.join()
        ratios.append(beside / without)
        print(f"{without:.1f} tokens/s, with {options.dashboards} dashboards {beside:.1f} ({got / 1e3:.0f} kB each)")
    for stream in streams:
        stream.ended = True
    print(f"cost: {100 * (1 - statistics.median(ratios)):.1f} % of the tokens a second")


if __name__ == "__main__":
    main()
