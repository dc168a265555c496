#!/usr/bin/env python3
"""What HTTP costs, measured by hand on an otherwise idle machine.

    bench_serve.py chats TESSERA MODEL CONCURRENCY [REQUESTS]            through HTTP, beside the same work by `tessera batch`
    bench_serve.py chats llama-server MODEL CONCURRENCY [REQUESTS]       another server, the same work
    bench_serve.py bad TESSERA MODEL [BAD-A-SECOND]                      chats, alone and beside bad requests
    bench_serve.py front TESSERA MODEL CONCURRENCY [ROUNDS]              two ranks: the front in rank 0, and in a process of its own

A chat has some 128 tokens of prompt and 64 of answer, greedy; CONCURRENCY of them are under way at a time. The client is one
thread that reads bytes and parses nothing but the end of a stream: it shares the cores with the server. A batch reads prompts at full
speed, so the server is measured so as well, beside as it is usually (sparing those who read along).
"""
import json
import os
import random
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

WORDS = ("river stone garden winter machine letter planet coffee window forest music paper silver doctor bridge summer market island "
         "engine teacher").split()
ANSWER_TOKENS = 64


def chat(i):
    chance = random.Random(i)
    text = "%d story: " % i + " ".join(chance.choice(WORDS) for _ in range(92))
    return {"messages": [{"role": "user", "content": text}], "max_tokens": ANSWER_TOKENS, "temperature": 0, "ignore_eos": True}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as link:
        return link.getsockname()[1]


def start(program, model, concurrency, *more, launcher=()):
    port = free_port()
    if os.path.basename(program) == "llama-server":
        words = [program, "-m", model, "-t", "2", "-np", str(concurrency), "-c", str(256 * concurrency), "--port", str(port)]
    else:
        words = [*launcher, program, "serve", "--model", model, "--max-sequences", str(concurrency), "--port", str(port), *more]
    job = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            with urllib.request.urlopen("http://127.0.0.1:%d/health" % port) as answer:
                if answer.status == 200:
                    return job, port
        except OSError:
            time.sleep(0.1)


def connect(port, body):
    data = json.dumps(body).encode()
    link = socket.create_connection(("127.0.0.1", port))
    link.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data)
                 + data)
    return link


def load(port, concurrency, n_requests, first=0):
    """Tokens a second of answers."""
    waiting = selectors.DefaultSelector()
    ends = {}
    sent = 0
    began = time.monotonic()
    while sent < n_requests or ends:
        while sent < n_requests and len(ends) < concurrency:
            link = connect(port, dict(chat(first + sent), stream=True))
            waiting.register(link, selectors.EVENT_READ)
            ends[link] = b""
            sent += 1
        for key, _ in waiting.select():
            link = key.fileobj
            got = link.recv(1 << 16)
            ends[link] = (ends[link] + got)[-40:]
            if not got or b"[DONE]" in ends[link]:
                assert got, "a stream was cut off"
                waiting.unregister(link)
                link.close()
                del ends[link]
    return n_requests * ANSWER_TOKENS / (time.monotonic() - began)


def by_batch(program, model, concurrency, n_requests, first=0):
    with tempfile.TemporaryDirectory() as folder:
        lines, results = os.path.join(folder, "in"), os.path.join(folder, "out")
        with open(lines, "w", encoding="ascii") as file:
            for i in range(n_requests):
                file.write(json.dumps({"custom_id": str(i), "method": "POST", "url": "/v1/chat/completions", "body": chat(first + i)}) + "\n")
        done = subprocess.run([program, "batch", "--model", model, "--max-sequences", str(concurrency), "--in-flight", str(concurrency),
                               lines, results], capture_output=True, check=True, text=True)
        return float(re.search(r"generated \d+ tokens, ([0-9.]+)/s", done.stderr).group(1))


def by_http(program, model, concurrency, n_requests, *more):
    job, port = start(program, model, concurrency, *more)
    load(port, 2, 2, 10000)
    rate = load(port, concurrency, n_requests)
    job.terminate()
    job.wait()
    return rate


def chats(program, model, concurrency, n_requests):
    told = {"chats": concurrency, "requests": n_requests, "http_tokens_s": round(by_http(program, model, concurrency, n_requests), 1)}
    if os.path.basename(program) != "llama-server":
        unhurried, engine = [], []
        for _ in range(2):
            unhurried.append(by_http(program, model, concurrency, n_requests, "--target-itl", "1000000"))
            engine.append(by_batch(program, model, concurrency, n_requests))
        told.update(unhurried_tokens_s=[round(one, 1) for one in unhurried], engine_tokens_s=engine,
                    ratio=round(sum(unhurried) / sum(engine), 3))
    print(json.dumps(told), flush=True)


def send_bad(port, rate, until, counted):
    """Requests of every wrong kind over a few connections, at a steady rate."""
    bodies = [b"{", b'{"prompt": 1}', b'{"prompt": "a", "n": 0}', b'{"prompt": "a", "model": "no"}', b'{"x": 1}', b"[" * 3000]
    asks = [b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body for body in bodies]
    asks.append(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
    link = socket.create_connection(("127.0.0.1", port))
    began = time.monotonic()
    n = 0
    while time.monotonic() < until[0]:
        due = int((time.monotonic() - began) * rate)
        if n >= due:
            time.sleep(0.002)
            continue
        link.sendall(asks[n % len(asks)])
        head = link.recv(1 << 16)
        assert head.startswith(b"HTTP/1.1 4"), head[:60]
        n += 1
    counted.append(n / (time.monotonic() - began))
    link.close()


def bad(program, model, rate):
    job, port = start(program, model, 8)
    load(port, 2, 2, 10000)
    alone, beside, counted = [], [], []
    for turn in range(2):
        alone.append(load(port, 8, 16, 100 * turn))
        until = [time.monotonic() + 1000]
        senders = [threading.Thread(target=send_bad, args=(port, rate / 4, until, counted)) for _ in range(4)]
        for sender in senders:
            sender.start()
        beside.append(load(port, 8, 16, 100 * turn + 50))
        until[0] = 0
        for sender in senders:
            sender.join()
    job.terminate()
    job.wait()
    print(json.dumps({"alone_tokens_s": [round(one, 1) for one in alone], "beside_tokens_s": [round(one, 1) for one in beside],
                      "bad_a_second": round(sum(counted) / 2), "ratio": round(sum(beside) / sum(alone), 3)}), flush=True)


def front_ms(job):
    """The time on cores that the threads of a process have had."""
    tasks = "/proc/%d/task" % job.pid
    total = 0
    for task in os.listdir(tasks):
        with open("%s/%s/schedstat" % (tasks, task), encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total / 1e6


def front(program, model, concurrency, rounds):
    """Both at once and asked in turns, for the machine is never the same for long."""
    mpirun = ["mpirun", "--oversubscribe"]
    inside = start(program, model, concurrency, launcher=mpirun + ["-n", "2"])
    beside = start(program, model, concurrency, "--tensor-parallel-size", "2", "--launcher", " ".join(mpirun))
    rates, waits, spent = {}, {}, 0
    for i in range(rounds):
        for job, port in (inside, beside) if i % 2 else (beside, inside):
            before = front_ms(job) if job == beside[0] else 0
            rates.setdefault(port, []).append(load(port, concurrency, 2 * concurrency, 1000 * i))
            spent += front_ms(job) - before if job == beside[0] else 0
        for k in range(4):
            for _, port in inside, beside:
                waits.setdefault(port, []).append(1e3 * ANSWER_TOKENS / load(port, 1, 1, 1000 * i + 500 + k))
    for job, _ in inside, beside:
        job.terminate()
        job.wait()
    differences = [b - a for a, b in zip(waits[inside[1]], waits[beside[1]])]
    ratios = [b / a for a, b in zip(rates[inside[1]], rates[beside[1]])]
    print(json.dumps({"chats": concurrency, "in_rank_0_tokens_s": [round(one) for one in rates[inside[1]]],
                      "beside_tokens_s": [round(one) for one in rates[beside[1]]], "ratio": round(statistics.median(ratios), 3),
                      "alone_ms": round(statistics.median(waits[inside[1]]), 1), "beside_ms_more": round(statistics.median(differences), 2),
                      "front_ms_a_chat": round(spent / rounds / (2 * concurrency), 2)}), flush=True)


if __name__ == "__main__":
    what, tessera, path, *rest = sys.argv[1:]
    if what == "chats":
        chats(tessera, path, int(rest[0]), int(rest[1]) if len(rest) > 1 else 2 * int(rest[0]))
    elif what == "front":
        front(tessera, path, int(rest[0]), int(rest[1]) if len(rest) > 1 else 8)
    else:
        bad(tessera, path, int(rest[0]) if rest else 1000)
