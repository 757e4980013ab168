"""A server under load: many clients at once, clients that hang up, and files that are no pictures.

    python tests/app/load.py [--clients 50] [--seconds 120] [--fuzzed 500] [--json FILE]

It starts `trichrome serve` and asks it from threads of its own. Every answer must be the picture, with the bytes of a
single call, or "busy" with Retry-After; the server's memory after the warm-up must stay within MEMORY of itself; a
client that hangs up must leave its place; damaged, oversized and bomb-like files must be refused with a sentence; a
foreign Origin or Host must be refused. The exit code says whether all of it was so.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
from PIL import Image

MEMORY = 0.10  # how far resident memory may go from its middle after the warm-up
WARM_UP = 0.3  # share of the time
QUEUE = 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--fuzzed", type=int, default=500, help="files that are no pictures any more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    with Server() as server:
        photos = {f"photo{seed}.png": picture(seed, (320 + 40 * seed, 240)) for seed in range(5)}
        single = {name: server.colorize(name, content).content for name, content in photos.items()}
        figures = {
            "clients": options.clients, "seconds": options.seconds,
            **loaded(server, photos, single, options.clients, options.seconds),
            "hung up": hung_up(server, photos), "fuzzed": fuzzed(server, options.fuzzed, options.seed),
            "foreign": foreign(server),
        }  # fmt: skip
    figures["met"] = bool(
        figures["wrong"] == 0 and figures["memory within"] <= MEMORY and figures["hung up"]["waiting after"] == 0
        and not figures["fuzzed"]["wrong"] and figures["foreign"] == [403, 403]
    )  # fmt: skip
    text = json.dumps(figures, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0 if figures["met"] else 1


class Server:
    """`trichrome serve` as a process."""

    def __enter__(self) -> Server:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "pipeline.cli", "serve", "--port", str(self.port), "--queue", str(QUEUE)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.process.stdout.readline()
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=120,
                                    limits=httpx2.Limits(max_connections=200))  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(30)

    def colorize(self, name: str, content: bytes, **headers: str) -> httpx2.Response:
        return self.client.post("/v1/colorize", files={"file": (name, content)}, data={"seed": "0"}, headers=headers)

    def health(self) -> dict[str, object]:
        return self.client.get("/v1/health").json()

    def memory(self) -> float:
        """Resident, in megabytes (10^6 bytes)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6


def loaded(
    server: Server, photos: dict[str, bytes], single: dict[str, bytes], clients: int, seconds: float
) -> dict[str, object]:
    """All clients at once, each with one request after the other."""
    counts: Counter[str] = Counter()
    lock, end = threading.Lock(), time.monotonic() + seconds
    memory: list[float] = []

    def ask(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < end:
            name = chance.choice(sorted(photos))
            try:
                answer = server.colorize(name, photos[name])
            except httpx2.HTTPError as error:
                outcome = f"wrong: {type(error).__name__}"
            else:
                busy = answer.status_code == 429 and answer.json()["error"]["code"] == "busy"
                right = answer.status_code == 200 and answer.content == single[name]
                outcome = "busy" if busy else "colored" if right else f"wrong: {answer.status_code}"
            with lock:
                counts[outcome] += 1
            if outcome == "busy":
                time.sleep(chance.uniform(0.2, 1.0))

    with ThreadPoolExecutor(clients) as pool:
        for number in range(clients):
            pool.submit(ask, number)
        while time.monotonic() < end:
            time.sleep(min(1.0, seconds / 20))
            if time.monotonic() > end - (1 - WARM_UP) * seconds:
                memory.append(server.memory())
    middle = float(np.median(memory))
    wrong = sum(count for outcome, count in counts.items() if outcome.startswith("wrong"))
    return {
        "outcomes": dict(counts), "wrong": wrong, "megabytes": round(middle, 1),
        "memory within": round(max(abs(one / middle - 1) for one in memory), 3),
    }  # fmt: skip


def hung_up(server: Server, photos: dict[str, bytes]) -> dict[str, object]:
    """Fills the queue with clients that go away, and asks once more."""
    name, content = next(iter(photos.items()))
    body = httpx2.Request("POST", "http://x/", files={"file": (name, content)}, data={"samples": "8"})
    payload = body.read()
    head = (f"POST /v1/colorize HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: {len(payload)}\r\n"
            f"Content-Type: {body.headers['content-type']}\r\n\r\n").encode()  # fmt: skip
    gone = []
    for _ in range(QUEUE):
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(head + payload)
        gone.append(client)
    time.sleep(0.3)
    waiting = server.health()["waiting"]
    for client in gone:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    start = time.monotonic()
    answer = server.colorize(name, content)
    seconds = round(time.monotonic() - start, 2)
    return {"waiting before": waiting, "answered": answer.status_code, "after seconds": seconds,
            "waiting after": server.health()["waiting"]}  # fmt: skip


def fuzzed(server: Server, count: int, seed: int) -> dict[str, object]:
    """Files that are damaged, cut off, too large by their header, or none at all."""
    chance, outcomes, wrong = random.Random(seed), Counter[str](), []
    whole = [picture(seed, (64, 48), kind) for kind in ("PNG", "JPEG", "TIFF", "WEBP")]
    ways: list[Callable[[], bytes]] = [
        lambda: chance.choice(whole)[: chance.randrange(1, 400)],
        lambda: flipped(chance.choice(whole), chance),
        lambda: chance.randbytes(chance.randrange(0, 5000)),
        lambda: bomb(chance.choice([20_000, 60_000, 1_000_000])),
        lambda: whole[0][:8] + chance.randbytes(300),
    ]
    for number in range(count):
        content = ways[number % len(ways)]()
        answer = server.colorize(f"fuzzed{number}.png", content)
        error = answer.json().get("error", {}) if answer.status_code != 200 else {}
        # A flipped bit may leave a picture that is one: then it is colored.
        fine = answer.status_code == 200 or (400 <= answer.status_code < 500 and error.get("message"))
        outcomes[str(answer.status_code)] += 1
        if not fine:
            wrong.append({"number": number, "status": answer.status_code, "error": error})
    return {"count": count, "outcomes": dict(outcomes), "wrong": wrong, "alive": server.health()["status"] == "ok"}


def foreign(server: Server) -> list[int]:
    """The status for another site's Origin, and for a name that is not this machine's."""
    content = picture(0, (32, 24))
    return [server.colorize("x.png", content, **headers).status_code
            for headers in ({"origin": "https://example.org"}, {"host": "example.org"})]  # fmt: skip


def picture(seed: int, size: tuple[int, int], kind: str = "PNG") -> bytes:
    levels = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8), np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


def flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(20):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def bomb(side: int) -> bytes:
    """A PNG that says it is side x side, with next to nothing in it."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


if __name__ == "__main__":
    sys.exit(main())
