#!/usr/bin/env python3
"""Many streams at once, many of them given up on the way: memory stays flat, the pools are clean, nobody is stuck.

Runs under CTest, which says where things are: TESSERA, TINY_GGUF, MPIEXEC. Standard library only. For longer than the
few seconds of a test: load_test.py SECONDS Load.
"""
import collections
import http.client
import json
import os
import random
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from support.server import WAIT_S, Server, children

RANKS = 2
STREAMS = 64
SECONDS = 8.0
FOLDER = tempfile.TemporaryDirectory(prefix="tessera-load-")
MODEL = os.path.join(FOLDER.name, "tiny.gguf")


def setUpModule():
    subprocess.run([os.environ["TINY_GGUF"], "9/3", "1", MODEL], check=True, timeout=WAIT_S)


def tearDownModule():
    FOLDER.cleanup()


def resident(pid):
    """Bytes of a process and of all below it."""
    with open("/proc/%d/statm" % pid, encoding="ascii") as file:
        own = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return own + sum(resident(child) for child in children(pid))


def most_links():
    """That this process may have open, and its server too."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = 20000 if hard == resource.RLIM_INFINITY else min(hard, 20000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most - 300


class Client(threading.Thread):
    """One that asks again and again, and does with the answers what clients do."""

    def __init__(self, server, number, until, known):
        super().__init__()
        self.server, self.until, self.known = server, until, known
        self.chance = random.Random(number)
        self.n_whole = self.n_given_up = 0
        self.fault = None

    def body(self):
        seed = self.chance.randrange(40)
        return {"prompt": [1 + (seed * 7 + k) % 60 for k in range(3 + seed % 40)], "max_tokens": 10 + seed * 4 % 80, "ignore_eos": True,
                "seed": seed, "temperature": seed % 3 * 0.5, "n": 1 + seed % 3, "stream": seed % 5 != 0}

    def one(self):
        body = self.body()
        link = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=WAIT_S)
        link.request("POST", "/v1/completions", json.dumps(body))
        way = self.chance.random()
        if way < 0.15:  # gone before anything comes
            link.close()
            self.n_given_up += 1
            return
        answer = link.getresponse()
        if way < 0.45 and body["stream"]:  # gone in the middle, slowly
            for _ in range(self.chance.randrange(6)):
                answer.readline()
                time.sleep(self.chance.random() * 0.05)
            link.close()
            self.n_given_up += 1
            return
        text = answer.read()
        link.close()
        if answer.status != 200:
            raise RuntimeError("%d: %r" % (answer.status, text))
        self.check(body, text)
        self.n_whole += 1

    def check(self, body, text):
        """An answer is what it was the first time."""
        said = [""] * body["n"]
        if body["stream"]:
            parts = text.decode().split("\n\n")
            if parts[-2] != "data: [DONE]":
                raise RuntimeError("a stream without an end")
            for part in parts[:-2]:
                for choice in json.loads(part.removeprefix("data: "))["choices"]:
                    said[choice["index"]] += choice["text"]
        else:
            said = [choice["text"] for choice in json.loads(text)["choices"]]
        if self.known.setdefault(body["seed"], said) != said:
            raise RuntimeError("another answer than before: %r" % body)

    def run(self):
        try:
            while time.monotonic() < self.until or self.n_whole < 2:  # however slow the machine is
                self.one()
        except (RuntimeError, OSError, ValueError, http.client.HTTPException) as fault:
            self.fault = fault


class Load(unittest.TestCase):
    def test_streams_come_and_go(self):
        server = Server(MODEL, "--max-sequences", "16", "--kv-memory", "4M", "--kv-host", "4M", ranks=RANKS)
        try:
            known = {}
            until = time.monotonic() + SECONDS
            clients = [Client(server, i, until, known) for i in range(STREAMS)]
            for client in clients:
                client.start()
            sizes = []
            while time.monotonic() < until:
                time.sleep(SECONDS / 16)
                sizes.append(resident(server.job.pid))
            for client in clients:
                client.join(WAIT_S)
                self.assertFalse(client.is_alive(), "a client is stuck")
                self.assertIsNone(client.fault)
            whole, given_up = sum(one.n_whole for one in clients), sum(one.n_given_up for one in clients)
            self.assertGreater(whole, STREAMS)
            self.assertGreater(given_up, STREAMS // 4)
            # Flat: the second half takes no more than a little above what the first half took at most.
            half = len(sizes) // 2
            self.assertLess(max(sizes[half:]), max(sizes[:half]) * 1.05 + (8 << 20), sizes)
            self.clean(server)
            print("%d answers read, %d given up; %.1f MiB at first, %.1f at the end" % (
                whole, given_up, sizes[0] / 2**20, sizes[-1] / 2**20))
        finally:
            server.end()

    def clean(self, server):
        """Nothing runs, waits or holds a block."""
        for name in ("tessera_requests_running", "tessera_requests_waiting"):
            self.until(lambda name=name: server.metric(name) == 0)
        self.until(lambda: server.metric("tessera_kv_blocks_free") == server.metric("tessera_kv_blocks"))

        def owners():
            status = json.loads(server.ask("GET", "/status")[1])
            lists = [tier.get("owners", [0]) for rank in status["ranks"] for tier in rank["tiers"]]
            return all(owner == -1 for one in lists for owner in one[::2])
        self.until(owners)

    def until(self, holds):
        end = time.monotonic() + WAIT_S
        while not holds():
            self.assertLess(time.monotonic(), end, "it never came true")
            time.sleep(0.05)


class Siege(unittest.TestCase):
    """What is no proper client: refused or outlived, and the others are answered."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server(MODEL, "--max-connections", "12000", "--timeout", "3", "--max-body", "1M")

    @classmethod
    def tearDownClass(cls):
        cls.server.end()

    def raw(self, data):
        link = socket.create_connection(("127.0.0.1", self.server.port))
        link.settimeout(WAIT_S)
        got = b""
        try:
            link.sendall(data)
            while True:
                more = link.recv(65536)
                if not more:
                    break
                got += more
        except OSError:
            pass  # it may cut us off
        link.close()
        return got

    def post(self, path, data, head=b""):
        return self.raw(b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%sContent-Length: %d\r\n\r\n%s" % (
            path, head, len(data), data))

    def alive(self):
        self.assertEqual(self.server.ask("GET", "/health")[0], 200)
        self.assertEqual(self.server.post("/v1/completions", {"prompt": [1, 2], "max_tokens": 2})[0], 200)

    def test_ten_thousand_connections(self):
        n = min(10000, most_links())
        before = resident(self.server.job.pid)
        links = [self.link() for _ in range(n)]
        # Each may ask, while the server is used by others; none takes more than its room.
        for i, link in enumerate(links):
            link.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(link.recv(1000)[:12], b"HTTP/1.1 200")
            if i % 1000 == 0:
                self.alive()
        self.alive()
        taken = resident(self.server.job.pid) - before
        self.assertLess(taken, (68 << 10) * n + (64 << 20))
        print("%d connections at once, of 10,000; they took %.1f MiB" % (n, taken / 2**20))
        for link in links:
            link.close()
        self.alive()

    def test_one_too_many_is_told_so(self):
        server = Server(MODEL, "--max-connections", "100")
        try:
            links = [self.link(server) for _ in range(min(1000, most_links()))]
            said = collections.Counter()
            for i, link in enumerate(links):
                if i % 2 or i < 100:  # the others say nothing, and do not stand in the way for long
                    link.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                    answer = link.recv(1000)
                    said[answer[9:12]] += 1
                    if i >= 100:
                        self.assertIn(b"too many connections", answer)
                        self.assertEqual(link.recv(1000), b"")
            self.assertEqual(said, {b"200": 100, b"503": (len(links) - 100) // 2})
            for link in links[100::2]:
                self.assertEqual(link.recv(1000), b"")
            for link in links:
                link.close()
            self.assertEqual(server.post("/v1/completions", {"prompt": [1, 2], "max_tokens": 2})[0], 200)
        finally:
            server.end()

    def link(self, server=None):
        link = socket.create_connection(("127.0.0.1", (server or self.server).port))
        link.settimeout(WAIT_S)
        return link

    def test_a_slow_loris_is_cut_off(self):
        links = []
        for _ in range(50):
            link = socket.create_connection(("127.0.0.1", self.server.port))
            link.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-")
            links.append(link)
        self.alive()
        for link in links:
            link.settimeout(WAIT_S)
            try:
                while link.recv(1000):
                    pass
            except ConnectionError:
                pass
            link.close()

    def test_what_is_too_large_or_deep_or_no_text_is_refused(self):
        self.assertIn(self.post(b"/v1/completions", b"{}", b"X-Long: " + b"a" * 300000 + b"\r\n")[9:12], (b"431", b"413", b"400", b""))
        self.assertIn(self.post(b"/v1/completions", b"{}", b"".join(b"X-%d: 1\r\n" % i for i in range(20000)))[9:12],
                      (b"431", b"413", b"400", b""))
        self.assertIn(self.raw(b"GET /" + b"a" * 300000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")[9:12], (b"414", b"431", b"400", b""))
        deep = b"[" * 400000
        for data in (deep, b'{"prompt": ' + deep, b'{"a":' * 100000, b'{"prompt": "\xff\xfe\xc0\x80"}', b'\xef\xbb\xbf{}',
                     b'{"prompt": "\\ud800"}', b'{"prompt": "a", "prompt": "b"}', b'{"prompt": [1e400]}', b"\0" * 1000):
            self.assertEqual(self.post(b"/v1/completions", data)[9:12], b"400", data[:40])
        self.assertEqual(self.post(b"/v1/completions", b" " * (2 << 20))[9:12], b"413")
        self.alive()

    def test_text_of_any_kind_is_text(self):
        for prompt in ("\0", "a\0b", "\u2028", "\U0001F600" * 10, "\ufeff", "<|im_end|>", "\u202e"):
            self.assertEqual(self.server.post("/v1/completions", {"prompt": prompt, "max_tokens": 1})[0], 200, repr(prompt))
            self.assertIn(self.server.post("/v1/chat/completions", {
                "messages": [{"role": "user", "content": prompt}], "max_tokens": 1})[0], (200, 400), repr(prompt))
        self.alive()

    def test_a_body_that_never_ends_holds_up_nobody(self):
        link = socket.create_connection(("127.0.0.1", self.server.port))
        link.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(64):
                link.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
        except OSError:
            pass
        self.alive()
        link.close()


class Secure(unittest.TestCase):
    def test_https_with_a_key_of_our_own(self):
        cert, key = os.path.join(FOLDER.name, "cert.pem"), os.path.join(FOLDER.name, "key.pem")
        made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                               "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2",
                               "-keyout", key, "-out", cert], capture_output=True, timeout=WAIT_S, check=False)
        self.assertEqual(made.returncode, 0, made.stderr)
        server = Server(MODEL, "--tls-cert", cert, "--tls-key", key, "--api-key", "secret")
        try:
            trust = ssl.create_default_context(cafile=cert)
            link = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=WAIT_S, context=trust)
            link.request("POST", "/v1/completions", json.dumps({"prompt": [1, 2], "max_tokens": 4, "stream": True}),
                         {"Authorization": "Bearer secret"})
            answer = link.getresponse()
            self.assertEqual(answer.status, 200)
            self.assertTrue(answer.read().endswith(b"data: [DONE]\n\n"))
            link.close()
            with socket.create_connection(("127.0.0.1", server.port)) as plain:
                plain.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                plain.settimeout(WAIT_S)
                try:
                    self.assertNotIn(b"200", plain.recv(100))
                except ConnectionError:
                    pass
        finally:
            server.end()

    def test_what_is_no_certificate_is_told(self):
        path = os.path.join(FOLDER.name, "none.pem")
        with open(path, "w", encoding="ascii") as file:
            file.write("no certificate\n")
        done = subprocess.run([os.environ["TESSERA"], "serve", "--model", MODEL, "--port", "0", "--tls-cert", path, "--tls-key", path],
                              capture_output=True, timeout=WAIT_S, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"cannot listen", done.stderr)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        SECONDS = float(sys.argv.pop(1))
    unittest.main()
