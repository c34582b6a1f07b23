"""How long streams pause when a stage is lost: killed or frozen, with a standby or without.

A standby is a stage that is cordoned while it holds nothing, beside others whose memory does not suffice without it: it
takes the lost one's layers. Without one, the others take them. The part of a pause that is the replay of what was
computed before (the re-prefill) ends with the next token and begins when the gateway counts a new epoch, which is
watched for every few milliseconds.
"""

import asyncio
import random
import time

from load import Load
from random_faults import LEASE_S
from throughput import percentile

STREAMS = 4
MEMORY = "200MiB"  # Holds about two thirds of the default model with its keys and values, so one alone is not enough.
WATCHED_S = 0.01  # Between two looks at the gateway's metrics.
ONSET_S = 0.5  # Tokens that were on their way at a fault have come by then.
FLOWS_S = 0.3  # A stream without a token for so long is not flowing.
GOES_ON_S = 30  # Until every stream has gone on.


class EpochWatch:
    """When the gateway was last seen to begin an epoch."""

    def __init__(self, fleet):
        self.fleet, self.began = fleet, []

    async def run(self):
        last = None
        while True:
            try:
                epochs = (await self.fleet.metrics())["baton_epochs_total"]
                if last is not None and epochs > last:
                    self.began.append(time.perf_counter())
                last = epochs
            except (OSError, TimeoutError, KeyError):
                pass
            await asyncio.sleep(WATCHED_S)

    def replay_s(self, at, late):
        """Of a pause from about `at` to `late`."""
        return next((late - began for began in reversed(self.began) if at < began < late), 0.0)


async def lose(fleet, load, name, how):
    """One fault; for each stream its pause, and its pause without the replay, in seconds."""
    watch = EpochWatch(fleet)
    watching = asyncio.create_task(watch.run())
    try:
        # Not while they replay after the last change: that would be counted to this one.
        await fleet.until("all streams flow", lambda: flow(load))
        await asyncio.sleep(0.2)
        at = time.perf_counter()
        flowing = {one for one in load.running if one.times and one.times[-1] > at - FLOWS_S}
        (fleet.kill if how == "kill" else fleet.freeze)(name)
        goes_on = lambda one: one not in load.running or one.times[-1] > at + ONSET_S
        while not all(map(goes_on, flowing)) and time.perf_counter() < at + GOES_ON_S:
            await asyncio.sleep(0.05)
    finally:
        watching.cancel()
    if how == "freeze":
        await asyncio.sleep(max(0, at + LEASE_S + 2 - time.perf_counter()))
        fleet.thaw(name)
        await asyncio.sleep(1)
    else:
        await fleet.join(name)
    pauses = [longest for one in flowing if (longest := longest_gap(one.times, at))]
    return [(late - early, late - early - watch.replay_s(at, late)) for early, late in pauses]


async def flow(load):
    now = time.perf_counter()
    return load.running and all(one.times and one.times[-1] > now - FLOWS_S for one in load.running)


def longest_gap(times, at):
    """Of those that began by `at`, or just after it, with a token that was on its way."""
    gaps = [(early, late) for early, late in zip(times, times[1:]) if early <= at + ONSET_S and late > at]
    return max(gaps, key=lambda gap: gap[1] - gap[0], default=None) if times[-1] > at + ONSET_S else None


def in_ms(seconds):
    if not seconds:
        return "nothing was seen"
    p50, p99, most = (1000 * one for one in (percentile(seconds, 50), percentile(seconds, 99), max(seconds)))
    return f"p50 {p50:5.0f}  p99 {p99:5.0f}  longest {most:5.0f} ms"


async def set_aside(fleet, name):
    """Makes it the standby."""
    for other in fleet.names:
        if other != name:
            await fleet.verb("unpin", other)
    for pin in ("--exclude", "--cordon"):
        if not await fleet.verb("pin", name, pin):
            raise RuntimeError(f"`baton pin {name} {pin}` was refused")
        await asyncio.sleep(0.5)
        await fleet.until(f"{name} stands by", lambda: stands_by(fleet, name))


async def stands_by(fleet, name):
    states = {stage["name"]: stage["state"] for stage in (await fleet.status())["stages"]}
    return await fleet.settled() and states[name] == "standby"


def pause(how, standby, bars):
    """The work that loses a stage `--rounds` times."""

    async def work(fleet, options):
        choose, seen, spare = random.Random(options.seed), [], fleet.names[-1]
        load = Load(fleet.port, STREAMS, options.seed, words=(20, 60), tokens=(200, 300))
        await load.undisturbed(STREAMS)
        async with load.pressed(STREAMS):
            for _ in range(options.rounds):
                if standby:
                    await set_aside(fleet, spare)
                await fleet.until("all is at rest", fleet.settled)
                await asyncio.sleep(choose.uniform(1, 2))
                name = choose.choice([name for name in fleet.names if not standby or name != spare])
                seen += await lose(fleet, load, name, how)
                spare = name
                await fleet.until("all is at rest", fleet.settled)
        whole, without = ([pair[at] for pair in seen] for at in (0, 1))
        print(f"  {options.rounds} rounds, {len(seen)} pauses: {load.verdict()}")
        for what, values in (("the whole pause", whole), ("without the replay", without)):
            print(f"  {what:18}  {in_ms(values)}", flush=True)
        print(f"  bar: {bars}", flush=True)
        return load.problems(), []

    return work


LIMITED = ["--memory", MEMORY]
KILLED, SILENT = "without the replay p50 <= 300 ms, p99 <= 1,500 ms", "<= 3,000 ms"
PAUSES = [
    ("pause, kill -9, a standby", LIMITED, pause("kill", True, KILLED)),
    ("pause, kill -9, the others take over", [], pause("kill", False, f"{KILLED}, and the time to map the layers")),
    ("pause, SIGSTOP, a standby", LIMITED, pause("freeze", True, SILENT)),
    ("pause, SIGSTOP, the others take over", [], pause("freeze", False, SILENT)),
]
