"""Parts of the server without a server: masks, metrics, addresses, limits, and the errors of exceptions."""

import asyncio
import json
import re
import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

from lyrics.processing_lyrics.chat_templates import ChatTemplateError
from lyrics.serving import BusyError, ClosedError
from lyrics.serving.server import ServerLimits, bind_socket
from lyrics.serving.server.errors import RequestError, describe_failure
from lyrics.serving.server.json_response import to_json
from lyrics.serving.server.mask_encoding import encode_mask
from lyrics.serving.server.metrics import Metrics
from lyrics.serving.server.remote_images import is_public
from lyrics.serving.server.worker_threads import WorkerThreads

for library in ("starlette", "uvicorn"):
    pytest.importorskip(library)


def decode_mask(encoded):
    """A mask from its runs, read as COCO documents them."""
    lengths, value, shift = [], 0, 0
    for character in encoded["counts"].encode():
        bits = character - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (1 << shift) if bits & 0x10 else 0
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value, shift = 0, 0
    runs = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return runs.reshape(encoded["size"], order="F")


def test_calls_that_nobody_waits_for_start_no_further_thread():
    """Those that run keep their thread until they end; those that wait are dropped."""
    go, running, most, started = threading.Event(), 0, 0, 0
    lock = threading.Lock()

    def work():
        nonlocal running, most, started
        with lock:
            running, started = running + 1, started + 1
            most = max(most, running)
        go.wait(60)
        with lock:
            running -= 1

    async def leave():
        threads = WorkerThreads(2)
        for _ in range(20):
            call, before = asyncio.ensure_future(threads.run(work)), started
            for _ in range(5_000):  # in which a thread that is free begins
                await asyncio.sleep(0)
                if started > before:
                    break
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        go.set()
        return await threads.run(lambda: started)

    assert asyncio.run(leave()) <= 2
    assert most <= 2


def test_masks_are_those_of_pycocotools():
    """The expected strings were written by pycocotools 2.0.11."""
    mask = np.zeros((4, 5), bool)
    mask[1:3, 1:4] = mask[0, 0] = True
    assert encode_mask(mask) == {"size": [4, 5], "counts": "0141N0003"}
    mask = np.zeros((300, 400), bool)
    mask[10:200] = mask[5, 7] = True
    assert encode_mask(mask)["counts"] == f":n5^300000000000KSJkLm5Z3{'0' * 783}F"


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.98, 1])
def test_masks_are_read_back(share):
    mask = np.random.default_rng(0).random((37, 53)) < share
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)


def test_metrics_are_in_the_format_of_prometheus(assistant):
    metrics = Metrics(assistant)
    metrics.requests.add(endpoint="/health", status="200")
    metrics.requests.add(2, endpoint="/health", status="200")
    for seconds in (0.01, 0.3, 500):
        metrics.request_seconds.observe(seconds, endpoint="/health")
    lines = metrics.render().splitlines()
    assert all(re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{(\w+=\"[^\"]*\",?)+\})? [\d.e+]+", line) for line in lines)
    assert 'lyrics_requests_total{endpoint="/health",status="200"} 3' in lines
    buckets = [int(line.split()[-1]) for line in lines if line.startswith("lyrics_request_seconds_bucket")]
    assert buckets == [1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3]
    assert 'lyrics_request_seconds_bucket{endpoint="/health",le="+Inf"} 3' in lines
    assert 'lyrics_request_seconds_count{endpoint="/health"} 3' in lines
    assert "lyrics_questions_waiting 0" in lines
    named = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(named) == len(set(named))


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
        *("169.254.169.254", "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1", "::7f00:1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::"),
        "no address",
    ],
)
def test_addresses_of_this_machine_and_its_networks_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_of_the_internet_are_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_images", 0), ("max_images", 1.5), ("max_tokens", True), ("timeout", float("nan")), ("timeout", "1")],
)
def test_limits_are_positive_numbers(field, value):
    with pytest.raises(ValueError, match=field):
        ServerLimits(**{field: value})


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RequestError(418, "Tea.", code="teapot"), 418, "teapot"),
        (BusyError("Many wait."), 503, "server_overloaded"),
        (ClosedError("Closed."), 503, "shutting_down"),
        (CancelledError(), 503, "shutting_down"),
        (TimeoutError("Late."), 503, "timeout"),
        (ValueError("Wrong."), 400, "invalid_value"),
        (ChatTemplateError("no system role"), 400, "invalid_value"),
        (RuntimeError("/secret/path"), 500, "internal_error"),
        (OSError("/secret/path"), 500, "internal_error"),
    ],
)
def test_every_exception_has_a_status(error, status, code):
    described = describe_failure(error)
    assert (described.status, described.code) == (status, code)
    assert "secret" not in described.message  # what went wrong inside is logged, and not sent


def test_json_of_what_utf8_cannot_hold():
    assert json.loads(to_json({"text": "é \ud800 😀"})) == {"text": "é \ud800 😀"}


def test_a_taken_port_is_known_at_once():
    with bind_socket("127.0.0.1", 0) as bound:
        bound.listen()
        port = bound.getsockname()[1]
        with pytest.raises(OSError, match=f"Cannot listen on 127.0.0.1 port {port}: .*in use"):
            bind_socket("127.0.0.1", port)
    with pytest.raises(OSError, match=r"There is no address 'nowhere\.invalid'"):
        bind_socket("nowhere.invalid", 0)
