"""`lyrics serve` under load: errors, mixed answers, memory, killed clients, and batched throughput beside one by one.

A server of the micro model runs in a process of its own. First its answers are asked for one at a time. Then many
clients ask at once, whole and streamed; each answer is compared with the first one, and every tenth client leaves as
soon as its answer begins. The resident memory of the server in the second half of the time is compared with the first.
Then the same clients ask a server that answers one question at a time.

    python benchmarks/serving.py                              # 64 clients for a minute
    python benchmarks/serving.py --clients 16 --seconds 10
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

SCENE = Path(__file__).parents[1] / "assets/scene.png"
QUESTIONS = (
    "What color is the ring?",
    "Where is the red star?",
    "How many objects are there?",
    "Describe the picture.",
)
PICTURES = 8
LEAVING = 10  # every tenth client leaves
MEMORY_GROWTH = 1.05


@dataclass
class Load:
    """What happened under load."""

    seconds: list[float] = field(default_factory=list)  # of each complete answer
    left: int = 0
    errors: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)  # seconds since the start, bytes
    duration: float = 0.0

    def rate(self) -> float:
        """Answers per second."""
        return len(self.seconds) / self.duration

    def memory_growth(self) -> float:
        """Largest memory of the second half, over the largest of the first."""
        first, second = (
            [used for at, used in self.memory if (at > self.duration / 2) == is_second] for is_second in (False, True)
        )
        return max(second) / max(first)


@dataclass(frozen=True)
class Question:
    """A request, and its answer when nobody else asks."""

    body: bytes
    expected: str


@contextmanager
def running(*options: str) -> Iterator[str]:
    """Address of a server in another process."""
    command = [sys.executable, "-m", "lyrics_cli.main", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:  # noqa: S603
        try:
            log = process.stderr
            if log is None:
                raise RuntimeError("The server has no standard error.")
            line = next((line for line in log if line.startswith("Serving ")), None)
            if line is None:
                raise RuntimeError("The server did not start.")
            threading.Thread(target=log.read, daemon=True).start()  # a full pipe would stop the server
            yield urlsplit(next(word for word in line.split() if "://" in word)).netloc
        finally:
            process.send_signal(signal.SIGTERM)


def request(address: str, method: str, path: str, body: bytes | None = None) -> bytes:
    """Body of an answer whose status is 200."""
    connection = http.client.HTTPConnection(address, timeout=300)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise RuntimeError(f"{response.status} {content[:200]!r}")
    return content


def ask(address: str, body: bytes) -> str:
    """The answer to a request, whole or streamed."""
    content = request(address, "POST", "/v1/chat/completions", body)
    if not content.startswith(b"data: "):
        return json.loads(content)["choices"][0]["message"]["content"]
    *events, end = [line[6:] for line in content.decode().split("\n\n") if line]
    if end != "[DONE]":
        raise RuntimeError(f"The stream ends with {end[:200]!r}.")
    return "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events)


def leave(address: str, body: bytes) -> None:
    """Ask, and leave when the answer begins."""
    connection = http.client.HTTPConnection(address, timeout=300)
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    connection.sock.recv(1)
    connection.close()


def prepare_questions(address: str) -> list[Question]:
    """Every question about every image, with the answers that come one at a time; half of them are streamed."""
    scene = Image.open(SCENE).convert("RGB")
    prepared: list[Question] = []
    for number in range(PICTURES):
        file = BytesIO()
        scene.crop((8 * number, 0, scene.width, scene.height - 8 * number)).save(file, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        for text in QUESTIONS:
            content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
            fields = {"messages": [{"role": "user", "content": content}], "stream": len(prepared) % 2 == 0}
            body = json.dumps(fields).encode()
            prepared.append(Question(body, ask(address, body)))
    return prepared


def put_under_load(address: str, questions: list[Question], clients: int, seconds: float) -> Load:
    """Let clients ask one question after the other for some time."""
    load, start = Load(), time.perf_counter()

    def run_client(number: int) -> None:
        position = number
        while time.perf_counter() - start < seconds:
            question, begun = questions[position % len(questions)], time.perf_counter()
            position += 7
            try:
                if number % LEAVING == LEAVING - 1:
                    leave(address, question.body)
                    load.left += 1
                    continue
                answer = ask(address, question.body)
            except Exception as error:  # noqa: BLE001  (counted)
                load.errors.append(f"{type(error).__name__}: {error}")
                continue
            load.seconds.append(time.perf_counter() - begun)
            if answer != question.expected:
                load.mixed.append(f"{question.expected!r} became {answer!r}")

    threads = [threading.Thread(target=run_client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        metrics = request(address, "GET", "/metrics").decode().splitlines()
        used = next(line for line in metrics if line.startswith("process_resident_memory_bytes "))
        load.memory.append((time.perf_counter() - start, float(used.split()[1])))
        time.sleep(min(1.0, seconds / 20))
    load.duration = time.perf_counter() - start
    return load


def describe(load: Load) -> dict[str, Any]:
    """Numbers of a load, for JSON."""
    ordered = sorted(load.seconds)
    return {
        "answers": len(ordered),
        "answers_per_second": round(load.rate(), 2),
        "median_seconds": round(statistics.median(ordered), 3),
        "p95_seconds": round(ordered[int(0.95 * (len(ordered) - 1))], 3),
        "clients_that_left": load.left,
        "errors": len(load.errors),
        "mixed_answers": len(load.mixed),
        "memory_mib": round(max(used for _, used in load.memory) / 2**20),
        "memory_growth": round(load.memory_growth(), 4),
    }


def main() -> int:
    """Print the numbers, and return 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64, help="clients at once (default: 64)")
    parser.add_argument("--seconds", type=float, default=60, help="time under load (default: 60)")
    parser.add_argument("--max-batch-size", type=int, default=16, help="questions answered at once (default: 16)")
    parser.add_argument("--model", help="a checkpoint's directory or Hub id (default: the micro model)")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    options = [f"--max-requests={max(64, 2 * arguments.clients)}", "--timeout=300"]
    options += [f"--model={arguments.model}"] if arguments.model else []
    with running(*options, f"--max-batch-size={arguments.max_batch_size}") as address:
        questions = prepare_questions(address)
        batched = put_under_load(address, questions, arguments.clients, arguments.seconds)
    print(json.dumps({"batched": describe(batched)}, indent=2), flush=True)
    with running(*options, "--max-batch-size=1") as address:
        for question in questions:  # its caches are as warm
            ask(address, question.body)
        single = put_under_load(address, questions, arguments.clients, arguments.seconds / 2)
    print(json.dumps({"one by one": describe(single)}, indent=2))
    print(f"Batched, the server answers {batched.rate() / single.rate():.2f} times as much.")
    for problem in [*batched.errors, *batched.mixed, *single.errors, *single.mixed][:10]:
        print(problem)
    failed = batched.errors or batched.mixed or batched.memory_growth() > MEMORY_GROWTH
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
