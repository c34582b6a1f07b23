#!/usr/bin/env python3
"""What clients see of real faults: lost and changed answers, pauses, refusals. Real processes, the default model.

    python3 benches/faults.py [--faults N] [--requests N] [--rounds N] [--seconds N] [--stages N] [--seed N]
                              [--keep-logs] [--program PATH] [WORK ...]

WORK is one of the following; all of them unless said otherwise.

    kills        random faults under 16 streams: kill -9 in a random phase, SIGSTOP beyond the lease, etcd killed, pins
    pause        the gap between tokens around the loss of a stage, with a standby and without, killed and frozen
    etcd-away    etcd down for a minute under streams and new requests
    rolling      every stage restarted by SIGTERM, one after another, under load

Every answer is compared with that of an undisturbed run, byte by byte. Each line has the bar beside it. Exits with 1
when an accepted request was lost, changed or doubled, or a process ended that nobody had touched; the logs are kept
then.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
import time

import throughput
from fleet import Fleet
from load import Load
from pause import PAUSES, in_ms
from random_faults import RandomFaults
from throughput import percentile

STREAMS, STREAMS_BESIDE = 16, 8
DISTINCT_MAX = 96  # Different requests; each has to be answered twice, once undisturbed.
CALM_S = 15  # How long the streams are watched before etcd goes, and after it is back.
RESTARTED_S = 1  # From one restart to the next: new requests come in between.
PART_S_MAX = 3600  # Longest for one part.


# --- the works: each prints its lines and returns what went wrong, and a log of what was done ---


async def kills(fleet, options):
    load = Load(fleet.port, min(DISTINCT_MAX, max(1, options.requests // 2)), options.seed)
    began = time.monotonic()
    await load.undisturbed(STREAMS)
    calm_s = time.monotonic() - began
    faults = RandomFaults(fleet, load, options.seed)
    hurting = asyncio.create_task(faults.run(options.faults))
    await load.press(STREAMS, lambda asked: asked < options.requests or not hurting.done())
    [broken] = await asyncio.gather(hurting, return_exceptions=True)
    await fleet.until("all is at rest", fleet.settled)
    metrics = await fleet.metrics()
    left = await fleet.left_behind()
    left += [f"the faults could not go on: {broken!r}"] if broken else []
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(faults.counts.items()))
    took_s = time.monotonic() - faults.began
    epochs, refused = metrics["baton_epochs_total"], metrics["baton_stage_process_frames_refused_total"]
    print(f"  {faults.done} faults ({kinds}) under {STREAMS} streams in {took_s:.0f} s: {load.verdict()}")
    print(
        f"  {load.distinct} different requests, undisturbed in {calm_s:.0f} s; the pipeline began {epochs:.0f} times; "
        f"refused by the stages that are there now: {refused:.0f} frames",
        flush=True,
    )
    return load.problems() + left, faults.log


async def etcd_away(fleet, options):
    if not fleet.etcd:
        print("  left out: there is no etcd here")
        return [], []
    load = Load(fleet.port, 2 * STREAMS_BESIDE, options.seed, words=(1, 80), tokens=(20, 80))
    await load.undisturbed(STREAMS_BESIDE)
    async with load.pressed(STREAMS_BESIDE):
        times = [time.perf_counter()]
        await asyncio.sleep(CALM_S)
        times.append(time.perf_counter())
        fleet.kill("store")
        await asyncio.sleep(options.seconds)
        times.append(time.perf_counter())
        await fleet.start_store()
        await asyncio.sleep(CALM_S)
        times.append(time.perf_counter())
    await fleet.until("all is at rest", fleet.settled)
    before, during, after = (load.gaps_between(*span) for span in zip(times, times[1:]))
    bar_ms = 1000 * percentile(before, 99) + 50
    print(f"  etcd down for {options.seconds:.0f} s (bar: none refused): {load.verdict()}")
    for name, gaps in (("before", before), ("without etcd", during), ("etcd is back", after)):
        bar = "" if gaps is before else f"  (bar: {bar_ms:.0f}, the p99 before + 50)"
        print(f"  between tokens, {name:12}  {in_ms(gaps)}{bar}", flush=True)
    return load.problems(), []


async def rolling(fleet, options):
    load = Load(fleet.port, 2 * STREAMS_BESIDE, options.seed, words=(1, 80), tokens=(20, 80))
    await load.undisturbed(STREAMS_BESIDE)
    problems, began = [], time.perf_counter()
    async with load.pressed(STREAMS_BESIDE):
        for turn in range(options.rounds):
            for name in fleet.names:
                status = await fleet.terminate(name)
                if status != 0:
                    problems.append(f"round {turn}: {name} ended with {status} when it was told to leave")
                await fleet.join(name)
                await asyncio.sleep(RESTARTED_S)
    ended = time.perf_counter()
    gaps = load.gaps_between(began, ended)
    restarts = f"{options.rounds} rounds of {len(fleet.names)} restarts in {ended - began:.0f} s"
    print(f"  {restarts} (bar: none refused): {load.verdict()}")
    print(f"  between tokens: {in_ms(gaps)}", flush=True)
    return problems + load.problems(), []


# For each work its parts: what is tried, more words for the command lines of the stages, and who does it.
WORKS = {
    "kills": [("kills", [], kills)],
    "pause": PAUSES,
    "etcd-away": [("etcd away", [], etcd_away)],
    "rolling": [("rolling restart", [], rolling)],
}


async def part(title, arguments, does, options):
    """In a cluster of its own; its problems."""
    fleet = Fleet(options.program, options.model, options.stages, arguments)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    store = "etcd" if fleet.etcd else "the store of `baton up`"
    print(f"{title}: {options.stages} stages, {store}, seed {options.seed}", flush=True)
    log = []
    try:
        async with fleet, asyncio.timeout(PART_S_MAX):
            problems, log = await does(fleet, options)
            problems += [f"{who} ended by itself with {status}" for who, status in fleet.ended_by_themselves().items()]
    except (RuntimeError, TimeoutError, ExceptionGroup) as error:
        problems = [f"it could not go on: {error!r}"]
    for problem in problems[:20]:
        print("  PROBLEM:", problem)
    if problems or options.keep_logs:
        (fleet.folder / "faults.log").write_text("\n".join([*log, *problems]) + "\n")
        print(f"  logs in {fleet.folder}", flush=True)
    else:
        fleet.forget()
    return problems


def main():
    parser = argparse.ArgumentParser(description="what clients see of faults", epilog="WORK: " + ", ".join(WORKS))
    parser.add_argument("work", nargs="*", metavar="WORK")
    parser.add_argument("--faults", type=int, default=50, help="of `kills`")
    parser.add_argument("--requests", type=int, default=500, help="of `kills`, at least")
    parser.add_argument("--rounds", type=int, default=20, help="of `pause` and `rolling`")
    parser.add_argument("--seconds", type=float, default=60, help="of `etcd-away`")
    parser.add_argument("--stages", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep-logs", action="store_true", help="even if all went well")
    parser.add_argument("--program", help="the baton to try; built unless said")
    options = parser.parse_args()
    unknown = [name for name in options.work if name not in WORKS]
    if unknown:
        parser.error(f"{unknown[0]!r} is none of {', '.join(WORKS)}")
    options.program = options.program or throughput.binary()
    options.model = subprocess.run([options.program, "pull"], check=True, capture_output=True, text=True).stdout.strip()
    parts = [one for name in options.work or WORKS for one in WORKS[name]]
    try:
        problems = [problem for one in parts for problem in asyncio.run(part(*one, options))]
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit("interrupted; all processes are stopped")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
