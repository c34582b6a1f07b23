"""Faults of random kinds at random times, each on a stage (or the store) of its own, and all of them undone.

Knows the fleet it hurts, and of the load only when a request was sent, to hit in that moment.
"""

import asyncio
import random
import time

LEASE_S = 5  # The default, which is what the bars are about.
AT_ONCE_MAX = 2  # Faults at once; the other stages have to be enough to go on.
BETWEEN_S_MEAN, BETWEEN_S_MAX = 2.5, 10  # From one fault to the next; every token could be lost with less.


class RandomFaults:
    """From a seed; `log` says when what was done."""

    KINDS = {"kill": 6, "freeze": 2, "store": 1, "pin": 1}

    def __init__(self, fleet, load, seed):
        self.fleet, self.load, self.choose = fleet, load, random.Random(seed)
        self.untouched, self.counts, self.done, self.log = set(fleet.names), {}, 0, []
        self.began = time.monotonic()
        self.store_free = asyncio.Lock()
        self.room = asyncio.Semaphore(AT_ONCE_MAX)

    def note(self, what):
        self.log.append(f"{time.monotonic() - self.began:7.2f} s  {what}")

    def take_stage(self):
        name = self.choose.choice(sorted(self.untouched))
        self.untouched.discard(name)
        if (status := self.fleet.processes[name].poll()) is not None:
            raise RuntimeError(f"{name} had ended by itself with {status}")
        return name

    async def run(self, count):
        kinds = {kind: weight for kind, weight in self.KINDS.items() if kind != "store" or self.fleet.etcd}
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                await self.room.acquire()
                await asyncio.sleep(min(self.choose.expovariate(1 / BETWEEN_S_MEAN), BETWEEN_S_MAX))
                [kind] = self.choose.choices(list(kinds), kinds.values())
                group.create_task(self.one(kind))

    async def one(self, kind):
        try:
            await getattr(self, kind)()
            self.done += 1
            self.counts[kind] = self.counts.get(kind, 0) + 1
        finally:
            self.room.release()

    async def kill(self):
        phase = self.choose.choice(("decode", "prefill", "loading", "draining"))
        name, delay = self.take_stage(), self.choose.uniform(0, 0.3)
        await getattr(self, phase)(name)
        await asyncio.sleep(delay)
        self.note(f"kill {name} in {phase}")
        self.fleet.kill(name)
        await asyncio.sleep(self.choose.uniform(0, 1.5 * LEASE_S))
        await self.fleet.join(name)
        self.note(f"{name} is back")
        self.untouched.add(name)

    # The phases of a kill.

    async def decode(self, _):
        await asyncio.sleep(self.choose.uniform(0, 1))

    async def prefill(self, _):
        """Just after a request was sent."""
        asked, ends = self.load.asked, time.monotonic() + 5
        while self.load.asked == asked and time.monotonic() < ends:
            await asyncio.sleep(0.005)

    async def loading(self, name):
        """It was killed once and is just coming back, which gives everybody other layers."""
        self.note(f"kill {name}, to be killed again while it joins")
        self.fleet.kill(name)
        await asyncio.sleep(self.choose.uniform(0, 2))
        self.fleet.start_stage(name)
        await asyncio.sleep(self.choose.uniform(0, 1))

    async def draining(self, name):
        self.fleet.processes[name].terminate()

    # The other kinds.

    async def freeze(self):
        name = self.take_stage()
        self.note(f"freeze {name}")
        self.fleet.freeze(name)
        await asyncio.sleep(LEASE_S + self.choose.uniform(0.5, 4))
        self.fleet.thaw(name)
        self.note(f"thaw {name}")
        await asyncio.sleep(1)
        self.untouched.add(name)

    async def store(self):
        async with self.store_free:
            self.note("kill the store")
            self.fleet.kill("store")
            await asyncio.sleep(self.choose.uniform(0.2, 2 * LEASE_S))
            await self.fleet.start_store()
            self.note("the store is back")

    async def pin(self):
        name = self.take_stage()
        pin = self.choose.choice((["--exclude"], [f"0..{self.choose.randint(2, 20)}"], ["--cordon"]))
        put = await self.fleet.verb("pin", name, *pin)
        self.note(f"pin {name} {pin[0]}: {'written' if put else 'refused'}")
        await asyncio.sleep(self.choose.uniform(0.5, 4))
        if put:
            # The store may be away just now.
            await self.fleet.until(f"{name} is not pinned", lambda: self.fleet.verb("unpin", name))
            self.note(f"unpin {name}")
        self.untouched.add(name)
