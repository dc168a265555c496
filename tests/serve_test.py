#!/usr/bin/env python3
"""`tessera serve` as clients use it: whole answers and streams, mistakes, clients that go away, many at once.

Runs under CTest, which says where things are: TESSERA, TINY_GGUF, MPIEXEC. Standard library only.
"""
import concurrent.futures
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from support.server import WAIT_S
from support.server import Server as AnyServer

TESSERA = os.environ["TESSERA"]
TINY_GGUF = os.environ["TINY_GGUF"]
RANKS = 2
KEY = "a key of ours"

FOLDER = tempfile.TemporaryDirectory(prefix="tessera-serve-")
MODEL = os.path.join(FOLDER.name, "tiny.gguf")


class Server(AnyServer):
    """One that runs the tiny model."""

    def __init__(self, *words, ranks=0):
        super().__init__(MODEL, "--served-model-name", "tiny", *words, ranks=ranks)

    def wait_for(self, name, wanted):
        """Until a metric is what it will be sooner or later."""
        end = time.monotonic() + WAIT_S
        while self.metric(name) != wanted:
            assert time.monotonic() < end, "%s is not %g" % (name, wanted)
            time.sleep(0.01)


def setUpModule():
    subprocess.run([TINY_GGUF, "9/3", "1", MODEL], check=True, timeout=WAIT_S)


def tearDownModule():
    FOLDER.cleanup()


def body(i=0, **more):
    return {"model": "tiny", "prompt": [1 + (i * 7 + k) % 60 for k in range(3 + i % 9)], "max_tokens": 12,
            "ignore_eos": True, "seed": i, **more}


# More work than is done before a test has done what it wants to do meanwhile.
LONG = body(prompt=[[1 + i, 2, 3] for i in range(64)], max_tokens=500, n=16, temperature=1)


def events(text):
    """The objects of a stream, which ends as it must."""
    found = text.decode().split("\n\n")
    assert found[-2:] == ["data: [DONE]", ""], found[-2:]
    return [json.loads(one.removeprefix("data: ")) for one in found[:-2]]


class Serving(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--max-sequences", "16", "--max-body", "64K", ranks=RANKS)

    @classmethod
    def tearDownClass(cls):
        cls.server.end()

    def good(self, path, request):
        status, answer = self.server.post(path, request)
        self.assertEqual(status, 200, answer)
        return answer

    def test_a_completion_is_what_generate_says(self):
        answer = self.good("/v1/completions", {"prompt": [3, 1, 4, 1, 5], "max_tokens": 9, "temperature": 0.8, "seed": 11})
        done = subprocess.run([TESSERA, "generate", "--model", MODEL, "--prompt-ids", "3,1,4,1,5", "--max-tokens", "9",
                               "--temperature", "0.8", "--seed", "11", "--json"], capture_output=True, check=True,
                              timeout=WAIT_S)
        said = json.loads(done.stdout)
        self.assertEqual(answer["choices"][0]["text"], said["text"])
        self.assertEqual(answer["choices"][0]["finish_reason"], said["finish_reason"])
        self.assertEqual(answer["usage"]["prompt_tokens"], 5)
        self.assertEqual(answer["object"], "text_completion")
        self.assertEqual(answer["model"], "tiny")

    def test_a_stream_gives_the_whole_answer_in_pieces(self):
        for more in ({}, {"n": 3, "temperature": 0.9}, {"logprobs": 2}, {"echo": True}):
            whole = self.good("/v1/completions", body(4, **more))
            status, text = self.server.ask("POST", "/v1/completions",
                                           body(4, stream=True, stream_options={"include_usage": True}, **more))
            self.assertEqual(status, 200)
            pieces = events(text)
            for i, choice in enumerate(whole["choices"]):
                mine = [one["choices"][0] for one in pieces if one["choices"] and one["choices"][0]["index"] == i]
                self.assertEqual("".join(one["text"] for one in mine), choice["text"])
                self.assertEqual([one["finish_reason"] for one in mine if one["finish_reason"]], ["length"])
                if "logprobs" in more:
                    self.assertEqual(sum((one["logprobs"]["token_logprobs"] for one in mine if one["logprobs"]), []),
                                     choice["logprobs"]["token_logprobs"])
            self.assertEqual(pieces[-1]["usage"], dict(whole["usage"]) | {
                "prompt_tokens_details": pieces[-1]["usage"]["prompt_tokens_details"]})

    def test_many_at_once_get_what_each_gets_alone(self):
        requests = [body(i, temperature=0.7 * (i % 2), n=1 + i % 3) for i in range(48)]
        alone = [self.good("/v1/completions", request)["choices"] for request in requests]
        with concurrent.futures.ThreadPoolExecutor(48) as pool:
            together = list(pool.map(lambda request: self.good("/v1/completions", request)["choices"], requests))
        self.assertEqual(together, alone)

    def test_beams_and_best_of_are_known_at_the_end(self):
        self.assertEqual(len(self.good("/v1/completions", body(2, use_beam_search=True, best_of=4, n=3))["choices"]), 3)
        self.assertEqual(len(self.good("/v1/completions", body(2, best_of=4, n=2, temperature=1))["choices"]), 2)
        for more in ({"best_of": 4}, {"best_of": 4, "use_beam_search": True}, {"use_beam_search": True}):
            status, answer = self.server.post("/v1/completions", body(2, stream=True, **more))
            self.assertEqual((status, answer["error"]["param"], answer["error"]["type"]), (400, "stream", "invalid_request_error"))
            self.assertIn("best_of or beams: they are known at the end only", answer["error"]["message"])

    def test_bad_requests_are_told_what_is_wrong_and_harm_nothing(self):
        for status, pattern, path, request in (
                (400, "no JSON", "/v1/completions", b"{"),
                (400, "no JSON", "/v1/completions", b""),
                (400, "no JSON", "/v1/completions", b"[" * 5000),
                (400, "JSON object", "/v1/completions", []),
                (400, "prompt", "/v1/completions", {}),
                (400, "max_tokens", "/v1/completions", body(max_tokens="many")),
                (400, "max_tokens", "/v1/completions", body(max_tokens=0)),
                (400, "temperature", "/v1/completions", body(temperature=-1)),
                (400, "top_p", "/v1/completions", body(top_p=2)),
                (400, "'n'", "/v1/completions", body(n=0)),
                (400, "'n'", "/v1/completions", body(n=1000)),
                (400, "best_of", "/v1/completions", body(n=3, best_of=2)),
                (400, "stop", "/v1/completions", body(stop=[1])),
                (400, "seed", "/v1/completions", body(seed=1.5)),
                (400, "logit_bias", "/v1/completions", body(logit_bias={"a": 1})),
                (400, "not known", "/v1/completions", body(temprature=1)),
                (400, "context", "/v1/completions", body(prompt=[1] * 5000)),
                (400, "ids", "/v1/completions", body(prompt=[10 ** 9])),
                (400, "nothing", "/v1/completions", body(prompt="")),
                (400, "messages", "/v1/chat/completions", {"model": "tiny"}),
                (400, "messages", "/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "image"}]}]}),
                (400, "input", "/v1/embeddings", {"model": "tiny"}),
                (400, "input", "/v1/embeddings", {"input": {"a": 1}}),
                (400, "nothing", "/v1/embeddings", {"input": ""}),
                (400, "pooling", "/v1/embeddings", {"input": "a", "pooling": "none"}),
                (400, "encoding_format", "/v1/embeddings", {"input": "a", "encoding_format": "hex"}),
                (400, "prompt", "/tokenize", {"x": 1}),
                (400, "tokens", "/detokenize", {"tokens": "x"}),
                (400, ".", "/detokenize", {"tokens": [10 ** 8]}),
                (404, "no model 'other'", "/v1/completions", body(model="other")),
                (404, "no such path", "/v1/nothing", {}),
                (405, "another method", "/v1/models", {}),
                (413, "too large", "/v1/completions", b"x" * 70000)):
            found, answer = self.server.post(path, request)
            self.assertEqual((found, path, request), (status, path, request))
            self.assertRegex(answer["error"]["message"], pattern)
        self.assertEqual(self.good("/v1/completions", body())["choices"][0]["finish_reason"], "length")

    def test_text_is_tokens_and_back(self):
        ids = self.good("/tokenize", {"prompt": "abc"})["tokens"]
        self.assertEqual(self.good("/detokenize", {"tokens": ids})["prompt"], "abc")

    def test_it_says_what_it_serves(self):
        self.assertEqual(json.loads(self.server.ask("GET", "/v1/models")[1])["data"][0]["id"], "tiny")
        self.assertEqual(json.loads(self.server.ask("GET", "/v1/models/tiny")[1])["id"], "tiny")
        self.assertEqual(self.server.ask("GET", "/v1/models/other")[0], 404)
        self.assertEqual(json.loads(self.server.ask("GET", "/health")[1]), {"status": "ok"})

    def test_a_client_that_goes_away_frees_its_request(self):
        for stream in (False, True):
            before = self.server.metric("tessera_requests_cancelled_total")
            data = json.dumps(dict(LONG, stream=stream)).encode()
            link = socket.create_connection(("127.0.0.1", self.server.port))
            link.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
            self.server.wait_for("tessera_requests_running", 1)
            if stream:
                link.recv(200)
            link.close()
            self.server.wait_for("tessera_requests_running", 0)
            self.assertEqual(self.server.metric("tessera_requests_cancelled_total"), before + 1)

    def test_slow_and_silent_clients_hold_up_nobody(self):
        links = []
        for i in range(200):
            link = socket.create_connection(("127.0.0.1", self.server.port))
            link.sendall([b"", b"GET", b"POST /v1/completions HTTP/1.1\r\nContent-Length: 100\r\n\r\n{",
                          b"GET /" + b"a" * 2000][i % 4])
            links.append(link)
        self.assertEqual(len(self.good("/v1/completions", body())["choices"]), 1)
        for link in links:
            link.close()

    def test_a_slow_reader_holds_up_nobody_and_loses_nothing(self):
        request = body(7, max_tokens=400, n=16, temperature=1, logprobs=5)
        whole = self.good("/v1/completions", request)["choices"]
        data = json.dumps(dict(request, stream=True)).encode()
        with socket.socket() as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            link.settimeout(WAIT_S)
            link.connect(("127.0.0.1", self.server.port))
            link.sendall(b"POST /v1/completions HTTP/1.0\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
            text = link.recv(1)
            for i in range(8):
                self.good("/v1/completions", body(i))
            self.server.wait_for("tessera_requests_running", 0)  # its answer is whole, and it has hardly read any of it
            while more := link.recv(1 << 16):
                text += more
        self.assertGreater(len(text), 1 << 20)
        said = [""] * 16
        for event in events(text.partition(b"\r\n\r\n")[2]):
            said[event["choices"][0]["index"]] += event["choices"][0]["text"]
        self.assertEqual(said, [choice["text"] for choice in whole])

    def test_metrics_are_what_prometheus_reads(self):
        self.good("/v1/completions", body(3))
        families, samples = {}, {}
        for line in self.server.ask("GET", "/metrics")[1].decode().splitlines():
            if line.startswith("# TYPE "):
                name, kind = line.split()[2:]
                self.assertNotIn(name, families)
                families[name] = kind
            elif not line.startswith("# HELP "):
                name, labels, value = re.fullmatch(r'([a-z_]+)(\{[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*\})? (\S+)', line).groups()
                self.assertIn(families.get(name) or families.get(re.sub("_(bucket|sum|count)$", "", name)), ("counter", "gauge", "histogram"))
                self.assertNotIn((name, labels), samples)
                samples[name, labels] = float(value)
        for name, kind in families.items():
            self.assertEqual(name.endswith("_total"), kind == "counter")
            if kind == "histogram":
                counts = [n for (of, _), n in samples.items() if of == name + "_bucket"]
                self.assertEqual(counts, sorted(counts))
                self.assertEqual(counts[-1], samples[name + "_count", None])
        for name in ("requests_total", "prompt_tokens_total", "generated_tokens_total", "prefix_hit_tokens_total", "requests_waiting",
                     "requests_running", "time_to_first_token_seconds", "token_gap_seconds", "request_seconds", "kv_rank_blocks",
                     "kv_rank_slots", "preemptions_total", "engine_serving", "engine_restarts_total", "engine_away_seconds"):
            self.assertIn("tessera_" + name, families)
        self.assertEqual({labels for name, labels in samples if name == "tessera_kv_rank_blocks"},
                         {'{rank="%d",tier="%s"}' % (rank, tier) for rank in range(RANKS) for tier in ("device", "host", "disk")})

    def test_what_is_no_http_is_survived(self):
        for junk in (b"\x00" * 100, b"GET / HTTP/9.9\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
                     b"GET / HTTP/1.1\r\nX: " + b"a" * 200000 + b"\r\n\r\n", b"\xff\xfe\r\n\r\n"):
            link = socket.create_connection(("127.0.0.1", self.server.port))
            link.settimeout(1)
            try:
                link.sendall(junk)
                link.shutdown(socket.SHUT_WR)
                while link.recv(65536):
                    pass
            except OSError:
                pass  # it may cut us off
            link.close()
        self.assertEqual(self.server.ask("GET", "/health")[0], 200)


class Ways(unittest.TestCase):
    def test_keys_are_asked_for(self):
        keys = os.path.join(FOLDER.name, "keys")
        with open(keys, "w", encoding="utf-8") as file:
            file.write("first\n\n%s\n" % KEY)
        server = Server("--api-key-file", keys, "--api-key", "third", "--cors", "*")
        try:
            for given in (None, "Bearer", "Bearer ", "Bearer wrong", "Bearer %sx" % KEY, KEY):
                headers = {"Authorization": given} if given else {}
                self.assertEqual(server.ask("GET", "/v1/models", None, headers)[0], 401)
                self.assertEqual(server.post("/v1/completions", body(), headers)[0], 401)
            for given in ("first", KEY, "third"):
                self.assertEqual(server.post("/v1/completions", body(), {"Authorization": "Bearer " + given})[0], 200)
            self.assertEqual(server.ask("GET", "/health")[0], 200)
            self.assertEqual(self.origin(server), "*")
        finally:
            server.end()

    def origin(self, server):
        """Whose pages may call it, as a browser asks before it does."""
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
        connection.request("OPTIONS", "/v1/completions", headers={"Origin": "http://a.example"})
        answer = connection.getresponse()
        self.assertEqual((answer.status, answer.read()), (204, b""))
        connection.close()
        return answer.getheader("Access-Control-Allow-Origin")

    def test_it_is_open_to_this_machine_only_and_to_no_page_unless_told(self):
        for words, address, origin in (([], "0100007F", None), (["--host", "0.0.0.0", "--cors", "http://a.example"], "00000000", "http://a.example")):
            server = Server(*words)
            try:
                with open("/proc/net/tcp", encoding="ascii") as file:
                    listening = [line.split()[1] for line in file if " 0A " in line]
                self.assertIn("%s:%04X" % (address, server.port), listening)
                self.assertEqual(self.origin(server), origin)
            finally:
                server.end()

    def test_one_too_many_is_told_to_come_again(self):
        server = Server("--max-sequences", "1", "--max-queue", "1")
        try:
            with concurrent.futures.ThreadPoolExecutor(12) as pool:
                found = list(pool.map(lambda i: server.post("/v1/completions", body(i, max_tokens=60)), range(12)))
            self.assertTrue({status for status, _ in found} <= {200, 400, 429}, found)
            self.assertIn(200, {status for status, _ in found})
        finally:
            server.end()

    def test_a_signal_ends_it_and_clients_hear_of_it(self):
        server = Server("--drain-timeout", "0")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waits = pool.submit(server.post, "/v1/completions", LONG)
            server.wait_for("tessera_requests_running", 1)
            self.assertEqual(server.end(), 143)
            self.assertEqual(waits.result()[0], 503)

    def test_a_signal_lets_it_finish_and_take_nothing_more(self):
        server = Server("--drain-timeout", str(WAIT_S))  # however slow it is
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waits = pool.submit(server.post, "/v1/completions", dict(LONG, max_tokens=60))
            server.wait_for("tessera_requests_running", 1)
            server.job.send_signal(signal.SIGTERM)
            while server.ask("GET", "/ready")[0] == 200:
                time.sleep(0.01)
            self.assertEqual(server.ask("GET", "/health")[0], 200)
            self.assertEqual(server.post("/v1/completions", body())[0], 503)
            self.assertEqual(waits.result()[0], 200)
            self.assertEqual(server.job.wait(WAIT_S), 143)
            server.reader.join()
            server.job.stderr.close()

    def test_mistakes_are_told_before_anything_is_loaded(self):
        for pattern, words in (("--host wants an address", ["--host", "nowhere"]), ("cannot be", ["--api-key-file", "/none"]),
                               ("go together", ["--tls-cert", "x"])):
            done = subprocess.run([TESSERA, "serve", "--model", MODEL, "--port", "0", *words], capture_output=True,
                                  timeout=WAIT_S, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr.decode(), pattern)
        taken = socket.create_server(("127.0.0.1", 0))
        done = subprocess.run([TESSERA, "serve", "--model", MODEL, "--port", str(taken.getsockname()[1])],
                              capture_output=True, timeout=WAIT_S, check=False)
        taken.close()
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"cannot listen", done.stderr)


if __name__ == "__main__":
    unittest.main()
