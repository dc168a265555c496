#!/usr/bin/env python3
"""`tessera serve` that starts its ranks and looks after them: whatever dies or stops, clients get what they would have got.

Runs under CTest as serve_test.py does. TSR_TEST_CHAOS_S=120 makes the trouble last two minutes, TSR_TEST_CHAOS_MODEL=FILE has it with
another model.
"""
import concurrent.futures
import json
import os
import random
import re
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import threading
import time
import unittest

import serve_test
from serve_test import TESSERA, body, events
from support import server as support
from support.server import MPIRUN, WAIT_S, children, lives

LAUNCHER = " ".join(MPIRUN[:-1])
CHAOS_S = float(os.environ.get("TSR_TEST_CHAOS_S", "0"))
CHAOS_MODEL = os.environ.get("TSR_TEST_CHAOS_MODEL")
EMBED_CLIENT = os.environ["EMBED_CLIENT"]
N_CLIENTS = 4 if CHAOS_MODEL else 12
PAUSE_S = (1, 3) if CHAOS_S else (0.2, 0.6)  # from serving again to the next trouble
GONE_S = 10  # in which all processes are to be gone when one is


def setUpModule():
    serve_test.setUpModule()


def tearDownModule():
    serve_test.tearDownModule()


class Supervised(serve_test.Server):
    """A front with ranks, whose words are kept."""

    def __init__(self, *words, launcher=LAUNCHER, n_ranks=2):
        super().__init__("--tensor-parallel-size", str(n_ranks), "--launcher", launcher, *words)

    def launcher(self):
        return children(self.job.pid)

    def ranks(self):
        """The processes of its ranks, once they serve."""
        self.wait_ready()
        return [rank for launcher in self.launcher() for rank in children(launcher)]

    def is_good(self, path):
        assert self.job.poll() is None, "".join(self.said)
        return self.ask("GET", path)[0] == 200

    def wait_ready(self):
        end = time.monotonic() + WAIT_S
        while not self.is_good("/ready"):
            assert time.monotonic() < end, "".join(self.said)
            time.sleep(0.02)

    def wait_red(self):
        """Returns how long it took to be so."""
        began = time.monotonic()
        while self.is_good("/health"):
            assert time.monotonic() < began + WAIT_S, "".join(self.said)
            time.sleep(0.02)
        return time.monotonic() - began

    def over(self):
        """Its exit status and all it said."""
        status = self.job.wait(WAIT_S)
        self.reader.join()
        self.job.stderr.close()
        return status, "".join(self.said)

    def end(self):
        self.job.send_signal(signal.SIGTERM)
        return self.over()[0]


def folder_of(rank):
    """That its socket is in."""
    with open("/proc/%d/cmdline" % rank, encoding="utf-8") as file:
        words = file.read().split("\0")
    return os.path.dirname(words[words.index("--socket") + 1])


def assert_gone(pids):
    end = time.monotonic() + GONE_S
    left = pids
    while left and time.monotonic() < end:
        left = [pid for pid in left if lives(pid)]
        time.sleep(0.02)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, "processes %s are left" % left


def requests():
    """Every way to be answered."""
    ways = ({"stream": True}, {"stream": True, "logprobs": 2, "temperature": 0.9}, {"stream": True, "n": 3, "temperature": 1.1},
            {"temperature": 0.8, "presence_penalty": 0.5, "frequency_penalty": 0.4, "repetition_penalty": 1.2},
            {"use_beam_search": True, "best_of": 3, "n": 2, "max_tokens": 60}, {"best_of": 3, "n": 2, "temperature": 1},
            {"stream": True, "logprobs": 1, "echo": True}, {"n": 2, "temperature": 0.7, "min_tokens": 20, "ignore_eos": False},
            {"stream": True, "stop": ["ab", "e9", "\n"], "temperature": 1}, {"logprobs": 3, "echo": True, "max_tokens": 90},
            {"stream": True, "n": 2, "logprobs": 0, "temperature": 1, "ignore_eos": False, "stop_token_ids": [50, 51]},
            {"stream": True, "temperature": 0.6, "logit_bias": {"17": 3, "40": -5}, "min_p": 0.02})
    return [dict(body(i, max_tokens=230, **{"model": None}), **way) for i, way in enumerate(ways)]


def fetch(server, request):
    """An answer, whole or put together: what must be the same, however long it took."""
    status, text = server.ask("POST", "/v1/completions", request)
    assert status == 200, (status, text)
    if not request.get("stream"):
        return [(c["text"], c["finish_reason"], c["logprobs"]) for c in json.loads(text)["choices"]]
    choices = {}
    for event in events(text):
        assert "error" not in event, event
        for one in event["choices"]:
            mine = choices.setdefault(one["index"], ["", [], []])
            mine[0] += one["text"]
            mine[1] += [one["finish_reason"]] if one["finish_reason"] else []
            mine[2] += one["logprobs"]["token_logprobs"] if one["logprobs"] else []
    return [tuple(map(str, choices[i])) for i in sorted(choices)]


class Load:
    """Clients that ask again and again, and hold every answer to the one that they got undisturbed."""

    def __init__(self, server):
        self.server = server
        self.wanted = [(request, fetch(server, request)) for request in requests()]
        self.n_answers = 0
        self.wrong = []
        self.is_over = False
        self.clients = [threading.Thread(target=self.run, args=(i,)) for i in range(N_CLIENTS)]
        for client in self.clients:
            client.start()

    def run(self, i):
        while not self.is_over and not self.wrong:
            request, wanted = self.wanted[i % len(self.wanted)]
            try:
                found = fetch(self.server, request)
                if found != wanted:
                    self.wrong.append((request, wanted, found))
            except (AssertionError, OSError, ValueError) as error:
                self.wrong.append((request, repr(error)))
            self.n_answers += 1
            i += 1

    def end(self):
        self.is_over = True
        for client in self.clients:
            client.join()
        return self.wrong


class Chaos(unittest.TestCase):
    def trouble(self, server, troubles):
        """Each kind once it serves again and has worked a moment."""
        for number, which in troubles:
            processes = server.launcher() if which is None else [server.ranks()[which]]
            time.sleep(random.uniform(*PAUSE_S))
            for pid in processes:
                os.kill(pid, number)
            server.wait_red()
            server.wait_ready()

    def test_every_request_gets_the_tokens_of_an_undisturbed_run(self):
        support.WAIT_S += 10 * CHAOS_S
        words = ["--model", CHAOS_MODEL] if CHAOS_MODEL else []
        server = Supervised("--max-sequences", "8", *words)
        load = Load(server)
        troubles = [(signal.SIGKILL, 1), (signal.SIGSTOP, 1), (signal.SIGKILL, 0), (signal.SIGSTOP, 0), (signal.SIGKILL, None)]
        n_troubles = 0
        end = time.monotonic() + CHAOS_S
        while n_troubles == 0 or (time.monotonic() < end and not load.wrong):
            random.shuffle(troubles)
            self.trouble(server, troubles)
            n_troubles += len(troubles)
        self.assertEqual(load.end(), [])
        counted = tuple(server.metric("tessera_engine_" + name) for name in ("restarts_total", "away_seconds_count", "serving"))
        away_s = server.metric("tessera_engine_away_seconds_sum")
        processes = server.launcher() + server.ranks()
        server.job.send_signal(signal.SIGTERM)
        status, said = server.over()
        self.assertEqual(status, 143)
        assert_gone(processes)
        waits = [float(s) for s in re.findall(r"serves again after (\S+) s", said)]
        n_waited = sum(int(n) for n in re.findall(r"the engine is lost; (\d+) request", said))
        self.assertEqual(len(waits), n_troubles, said)
        self.assertEqual(counted, (n_troubles, n_troubles, 1))
        self.assertAlmostEqual(away_s, sum(waits), delta=0.01 * n_troubles)
        self.assertGreater(n_waited, 0)
        print("%d times ranks were lost, %d requests waited for them, %d answers are right; to serve again: mean %.2f s, most %.2f s"
              % (len(waits), n_waited, load.n_answers, sum(waits) / len(waits), max(waits)), flush=True)

    def test_a_rank_alone_that_is_stopped_is_noticed(self):
        server = Supervised(n_ranks=1)
        request = dict(body(3, max_tokens=400, n=4, temperature=1), stream=True)
        wanted = fetch(server, request)
        rank = server.ranks()[0]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            os.kill(rank, signal.SIGSTOP)
            found = pool.submit(fetch, server, request)
            server.wait_red()
            self.assertEqual(found.result(), wanted)
        self.assertFalse(lives(rank))
        self.assertEqual(server.end(), 143)


class Clients(unittest.TestCase):
    """Programs that are not under MPI."""

    def client(self, *words, **environment):
        environment = dict(os.environ, LAUNCHER=LAUNCHER, PATH=os.path.dirname(TESSERA) + ":" + os.environ["PATH"], **environment)
        return subprocess.run([EMBED_CLIENT, *words, "abc"], capture_output=True, timeout=WAIT_S, env=environment, check=False)

    def test_an_engine_is_started_and_joined_and_says_the_same(self):
        own = self.client(serve_test.MODEL, "2")
        self.assertEqual(own.returncode, 0, own.stderr)
        self.assertRegex(own.stderr.decode(), r"2 ranks\n\d+ tokens, ended by (stop|length), log-probability -\d")
        # A rank is killed in step 24 of whatever job: 64 tokens take three, or four.
        lost = self.client(serve_test.MODEL, "2", TSR_FAULT="1:kill@24")
        self.assertEqual((lost.returncode, lost.stdout), (0, own.stdout), lost.stderr)
        self.assertIn(lost.stderr.count(b"the engine serves again"), (2, 3))
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "engine")
            server = Supervised("--engine-socket", path)
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
            joined = self.client("--join", path)
            self.assertEqual((joined.returncode, joined.stdout), (0, own.stdout), joined.stderr)
            self.hostile(path)
            self.assertEqual(len(server.post("/v1/completions", body())[1]["choices"]), 1)
            self.assertEqual(server.end(), 143)
            self.assertEqual(os.listdir(folder), [])

    def hostile(self, path):
        """Whatever is no client's is refused and harms nobody."""
        hello = struct.pack("=IIqqqqq", 48, 0, 1, 0, 0, 0, 0)
        dice = random.Random(1)
        for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 4096, struct.pack("=II", 8, 0), struct.pack("=II", 1 << 30, 1),
                     struct.pack("=IIqq", 24, 0, 99, 0), struct.pack("=IIq", 16, 2, 0), hello + struct.pack("=II", 8, 1),
                     hello + struct.pack("=IIqq", 24, 1, 0, 1 << 40), hello + hello, hello + struct.pack("=IIq", 16, 2, -1),
                     hello + struct.pack("=IIqq", 400, 1, 0, 5) + dice.randbytes(376)):
            link = socket.socket(socket.AF_UNIX)
            link.settimeout(WAIT_S)
            link.connect(path)
            try:
                link.sendall(junk)
                link.shutdown(socket.SHUT_WR)
                while link.recv(65536):
                    pass
            except ConnectionError:
                pass  # cut off with something unread
            link.close()

    def test_a_client_that_cannot_be_served_is_told(self):
        for words, pattern in ((["--join", "/nowhere/engine"], "no engine can be joined at '/nowhere/engine'"),
                               (["/nowhere.gguf", "2"], "/nowhere.gguf"), ([serve_test.MODEL, "0"], "1 rank or more")):
            done = self.client(*words)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr.decode(), pattern)

    def test_who_joined_goes_on_as_well(self):
        """However often: a rank is killed in step 24 of whatever job."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "engine")
            own = self.client(serve_test.MODEL, "1")
            os.environ["TSR_FAULT"] = "1:kill@24"
            server = Supervised("--engine-socket", path)
            del os.environ["TSR_FAULT"]
            joined = self.client("--join", path)
            self.assertEqual((joined.returncode, joined.stdout), (0, own.stdout), joined.stderr)
            self.assertIn(b"the engine serves again", joined.stderr)
            self.assertEqual(server.end(), 143)


class Ends(unittest.TestCase):
    def test_nothing_is_left_when_the_front_is_killed(self):
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            server = Supervised()
            processes = server.launcher() + server.ranks()
            folder = folder_of(processes[-1])
            self.assertEqual(stat.S_IMODE(os.stat(folder).st_mode), 0o700)
            self.assertEqual(len(processes), 3)
            server.job.send_signal(number)
            status, _ = server.over()
            self.assertEqual(status, -9 if number == signal.SIGKILL else 128 + number)
            assert_gone(processes)
            self.assertFalse(os.path.exists(folder))

    def script(self, folder, line, launcher=LAUNCHER):
        """A launcher that does something else first, with its starts counted in $n."""
        path = os.path.join(folder, "launcher")
        with open(path, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\necho >> %s/starts\nn=$(wc -l < %s/starts)\n%s\nexec %s \"$@\"\n" % (folder, folder, line, launcher))
        os.chmod(path, stat.S_IRWXU)
        return path

    def test_it_gives_up_when_ranks_do_not_come_back(self):
        with tempfile.TemporaryDirectory() as folder:
            server = Supervised(launcher=self.script(folder, "[ $n -gt 1 ] && exit 3"))
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                waits = pool.submit(server.post, "/v1/completions", serve_test.LONG)
                server.wait_for("tessera_requests_running", 1)
                os.kill(server.ranks()[1], signal.SIGKILL)
                self.assertEqual(waits.result()[0], 503)
                self.assertIn("did not come to serve", waits.result()[1]["error"]["message"])
            status, said = server.over()
            self.assertEqual(status, 1)
            self.assertRegex(said, r"started 5 times and did not come to serve; .*status 3")

    def test_ranks_that_die_faster_than_a_token_is_made_cost_requests_and_not_the_server(self):
        with tempfile.TemporaryDirectory() as folder:
            # The first eight jobs die in their first step, as do two more. (One rank needs no mpirun, which takes seconds to end.)
            line = "[ $n -le 10 ] && export TSR_FAULT=0:kill@0; shift 2"
            server = Supervised(launcher=self.script(folder, line, launcher=""), n_ranks=1)
            status, answer = server.post("/v1/completions", body())
            self.assertEqual((status, answer["error"]["message"]), (503, "the ranks were lost 8 times in a row and nothing came of it"))
            found = fetch(server, body())
            self.assertEqual(server.metric("tessera_engine_restarts_total"), 10)
            self.assertEqual(found, fetch(server, body()))
            self.assertEqual(server.end(), 143)

    def test_what_cannot_be_started_is_told_at_once(self):
        for words, status, pattern in (
                (["--launcher", "false"], 1, "ended before they served: status 1"),
                (["--launcher", "/nowhere/mpirun"], 1, "status 127"),
                (["--launcher", " "], 1, "without a word"),
                (["--launcher", LAUNCHER, "--engine-socket", "/nowhere/socket"], 1, "cannot listen at '/nowhere/socket'"),
                (["--launcher", LAUNCHER, "--engine-socket", "x" * 200], 1, "a socket's path"),
                (["--launcher", LAUNCHER, "--kv-memory", "1"], 1, "ended before they served"),
                (["--launcher", LAUNCHER, "--model", "/nowhere"], 1, "/nowhere")):
            done = subprocess.run([TESSERA, "serve", "--model", serve_test.MODEL, "--port", "0", "--tensor-parallel-size", "2",
                                   *words], capture_output=True, timeout=WAIT_S, check=False)
            self.assertEqual((words, done.returncode), (words, status))
            self.assertRegex(done.stderr.decode(), pattern)
        for words, pattern in ((["--launcher", "mpirun"], "--tensor-parallel-size"), (["--tensor-parallel-size", "0"], "1")):
            done = subprocess.run([TESSERA, "serve", "--model", serve_test.MODEL, *words], capture_output=True, timeout=WAIT_S,
                                  check=False)
            self.assertEqual(done.returncode, 2)
            self.assertRegex(done.stderr.decode(), pattern)
        done = subprocess.run(MPIRUN + ["1", TESSERA, "serve", "--model", serve_test.MODEL, "--tensor-parallel-size", "2"],
                              capture_output=True, timeout=WAIT_S, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"the ranks are there already", done.stderr)


if __name__ == "__main__":
    unittest.main()
