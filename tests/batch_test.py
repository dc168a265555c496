#!/usr/bin/env python3
"""`tessera batch` as a job uses it: requests and results, mistakes, and being killed in the middle.

Runs under CTest, which says where things are: TESSERA, TINY_GGUF, MPIEXEC. Standard library only.
"""
import json
import os
import pty
import random
import re
import signal
import subprocess
import tempfile
import time
import unittest

TESSERA = os.environ["TESSERA"]
TINY_GGUF = os.environ["TINY_GGUF"]
MPIRUN = [os.environ["MPIEXEC"], "--oversubscribe", "--bind-to", "none", "-n"]
WAIT_S = 100

FOLDER = tempfile.TemporaryDirectory(prefix="tessera-batch-")
MODEL = os.path.join(FOLDER.name, "tiny.gguf")


def setUpModule():
    subprocess.run([TINY_GGUF, "9/3", "1", MODEL], check=True, timeout=WAIT_S)


def tearDownModule():
    FOLDER.cleanup()


def path(name):
    return os.path.join(FOLDER.name, name)


def write(name, lines):
    with open(path(name), "w", encoding="utf-8") as file:
        file.write("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path(name)


def read(name):
    with open(path(name), "rb") as file:
        return file.read()


def command(source, target, *words, ranks=0):
    launcher = MPIRUN + [str(ranks)] if ranks else []
    return launcher + [TESSERA, "batch", "--model", MODEL, "--quiet", *words, source, target]


def batch(source, target, *words, ranks=0, stdin=b""):
    return subprocess.run(command(source, target, *words, ranks=ranks), input=stdin, capture_output=True,
                          timeout=WAIT_S, check=False)


def results(name):
    """By line of the input; a line that is there twice is a mistake."""
    found = {}
    with open(path(name), "rb") as file:
        for line in file.read().splitlines(keepends=True):
            assert line.endswith(b"\n"), line
            one = json.loads(line)
            number = int(one["id"].removeprefix("batch_req_"))
            assert number not in found, f"line {number} is there twice"
            found[number] = one
    return found


def answers(name):
    """What must not depend on when a line was computed."""
    return {number: [choice for choice in one["response"]["body"].get("choices", [])]
            for number, one in results(name).items()}


def requests(n):
    lines = []
    for i in range(n):
        body = {"prompt": [1 + (i * 7 + k) % 60 for k in range(3 + i % 9)], "max_tokens": 8 + i % 30, "ignore_eos": True}
        if i % 3 == 1:
            body.update(n=2, temperature=0.9)
        if i % 5 == 2:
            body.update(use_beam_search=True, best_of=3, n=2)
        lines.append({"custom_id": f"job-{i}", "method": "POST", "url": "/v1/completions", "body": body})
    return lines


class Batch(unittest.TestCase):
    def good(self, *how, **more):
        done = batch(*how, **more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def test_results_are_of_the_batch_form(self):
        source = write("form.jsonl", [
            {"custom_id": "one", "method": "POST", "url": "/v1/completions",
             "body": {"prompt": [5, 6, 7], "max_tokens": 4, "ignore_eos": True, "temperature": 0, "logprobs": 2}},
            {"prompt": [[5, 6, 7], [8, 9]], "max_tokens": 3, "ignore_eos": True, "temperature": 0},
        ])
        self.good(source, path("form.out"))
        found = results("form.out")
        self.assertEqual(sorted(found), [1, 2])
        first = found[1]
        self.assertEqual((first["custom_id"], first["error"], first["response"]["status_code"]), ("one", None, 200))
        body = first["response"]["body"]
        self.assertEqual(body["object"], "text_completion")
        self.assertEqual(body["usage"]["prompt_tokens"], 3)
        self.assertEqual(body["usage"]["completion_tokens"], 4)
        self.assertEqual(len(body["choices"][0]["logprobs"]["tokens"]), 4)
        self.assertTrue(all(len(top) == 2 for top in body["choices"][0]["logprobs"]["top_logprobs"]))
        self.assertIsNone(found[2]["custom_id"])
        choices = found[2]["response"]["body"]["choices"]
        self.assertEqual([choice["index"] for choice in choices], [0, 1])
        self.assertTrue(body["choices"][0]["text"].startswith(choices[0]["text"]))

    def test_a_line_says_the_same_as_generate(self):
        source = write("same.jsonl", [{"prompt": [3, 1, 4, 1, 5], "max_tokens": 9, "temperature": 0.8, "seed": 11}])
        self.good(source, path("same.out"))
        done = subprocess.run([TESSERA, "generate", "--model", MODEL, "--prompt-ids", "3,1,4,1,5", "--max-tokens", "9",
                               "--temperature", "0.8", "--seed", "11", "--json"], capture_output=True, check=True,
                              timeout=WAIT_S)
        self.assertEqual(results("same.out")[1]["response"]["body"]["choices"][0]["text"],
                         json.loads(done.stdout)["text"])

    def test_a_bad_line_costs_only_itself(self):
        source = write("bad.jsonl", [
            "no json", '{"prompt": [1], "prompt": [2]}', "[]", {"prompt": ""}, {"prompt": [1], "max_tokens": -1},
            {"prompt": [1], "temperature": "hot"}, {"prompt": [10 ** 12]}, {"prompt": [1], "nonsense": 1},
            {"url": "/v1/other", "body": {"prompt": [1]}}, {"method": "GET", "url": "/v1/completions", "body": {}},
            {"prompt": [1], "stop": [""]}, {"prompt": [1], "logit_bias": {"x": 1}}, {"prompt": [1], "n": 2, "best_of": 1},
            {"prompt": [1], "stream": True}, {"messages": []}, {"prompt": [1] * 100000}, {"prompt": {"a": 1}},
            {"prompt": [1], "stop_token_ids": 7}, {"prompt": [1], "logit_bias": {"9999999": 1}},
            {"custom_id": 5, "prompt": [1]}, "", {"prompt": [1, 2], "max_tokens": 2, "ignore_eos": True},
        ])
        self.good(source, path("bad.out"))
        found = results("bad.out")
        self.assertEqual(sorted(found), [*range(1, 21), 22])
        for number in range(1, 21):
            response = found[number]["response"]
            self.assertIn(response["status_code"], (400, 404, 405), response)
            self.assertGreater(len(response["body"]["error"]["message"]), 10)
        self.assertEqual(found[22]["response"]["status_code"], 200)

    def test_a_line_without_end_costs_only_itself(self):
        with open(path("endless.jsonl"), "w", encoding="utf-8") as file:
            file.write('{"prompt": "' + "x" * (65 << 20) + '"}\n{"prompt": [1, 2], "max_tokens": 2, "ignore_eos": true}')
        self.good(path("endless.jsonl"), path("endless.out"))
        found = results("endless.out")
        self.assertEqual([found[number]["response"]["status_code"] for number in (1, 2)], [400, 200])

    def test_killed_at_any_moment_it_loses_and_repeats_nothing(self):
        lines = requests(60)
        source = write("kill.jsonl", lines)
        self.good(source, path("whole.out"), "--in-flight", "7")
        for kill in range(6):
            job = subprocess.Popen(command(source, path("kill.out"), "--in-flight", "7"), stderr=subprocess.DEVNULL)
            waited = time.monotonic() + WAIT_S
            start = os.path.getsize(path("kill.out")) if os.path.exists(path("kill.out")) else 0
            while time.monotonic() < waited and job.poll() is None and (
                    not os.path.exists(path("kill.out")) or os.path.getsize(path("kill.out")) == start):
                time.sleep(0.001)
            time.sleep(random.uniform(0, 0.2))
            job.send_signal(signal.SIGKILL)
            job.wait(WAIT_S)
            self.tear(path("kill.out"), kill % 2 == 0)
        self.good(source, path("kill.out"), ranks=2)
        self.assertEqual(sorted(results("kill.out")), list(range(1, 61)))
        self.assertEqual(answers("kill.out"), answers("whole.out"))

    @staticmethod
    def tear(name, adds):
        """A write that was cut short: of one line more, or of the last that is there."""
        with open(name, "r+b") as file:
            last = file.read().splitlines(keepends=True)[-1]
            if adds:
                file.write(last[:random.randrange(len(last))])
            else:
                file.truncate(file.tell() - random.randint(1, len(last)))

    def test_a_signal_ends_it_and_it_goes_on_later(self):
        source = write("term.jsonl", requests(40))
        job = subprocess.Popen(command(source, path("term.out"), "--in-flight", "3"), stderr=subprocess.DEVNULL)
        waited = time.monotonic() + WAIT_S
        while time.monotonic() < waited and job.poll() is None and (
                not os.path.exists(path("term.out")) or os.path.getsize(path("term.out")) == 0):
            time.sleep(0.001)
        job.send_signal(signal.SIGTERM)
        self.assertIn(job.wait(WAIT_S), (143, 0))
        self.good(source, path("term.out"))
        self.assertEqual(sorted(results("term.out")), list(range(1, 41)))

    def test_when_its_time_is_over_it_says_that_lines_are_left(self):
        lines = [{"prompt": [1, 2, 3], "max_tokens": 200, "ignore_eos": True} for _ in range(4000)]
        source = write("time.jsonl", lines)
        done = batch(source, path("time.out"), "--time-limit", "1", "--in-flight", "2")
        self.assertEqual(done.returncode, 75, done.stderr)
        self.assertLess(len(results("time.out")), 4000)

    def test_a_slurm_job_that_says_when_it_ends_is_a_time_limit(self):
        source = write("slurm.jsonl", [{"prompt": [1, 2, 3], "max_tokens": 200, "ignore_eos": True} for _ in range(4000)])
        done = subprocess.run(command(source, path("slurm.out"), "--in-flight", "2"), capture_output=True, timeout=WAIT_S,
                              check=False, env=dict(os.environ, SLURM_JOB_END_TIME=str(int(time.time()) + 2)))
        self.assertEqual(done.returncode, 75, done.stderr)

    def test_a_terminal_shows_how_far_it_is_and_how_long_it_will_take(self):
        source = write("bar.jsonl", [{"prompt": [1, 2, 3], "max_tokens": 200, "ignore_eos": True} for _ in range(4000)])
        ours, theirs = pty.openpty()
        words = [word for word in command(source, path("bar.out")) if word != "--quiet"]
        with subprocess.Popen(words, stderr=theirs) as job:
            os.close(theirs)
            shown = b""
            while not re.search(rb"\d+ of 4000 lines, \d+ tokens/s, \d+:\d\d left \[#*-+\]", shown):
                shown += os.read(ours, 4096)  # which fails when nobody writes any more
            job.terminate()
        os.close(ours)

    def test_results_of_another_input_are_refused(self):
        self.good(write("a.jsonl", requests(3)), path("other.out"))
        before = read("other.out")
        done = batch(write("b.jsonl", [dict(line, custom_id="x" + line["custom_id"]) for line in requests(3)]),
                     path("other.out"))
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"another custom_id", done.stderr)
        self.assertEqual(read("other.out"), before)
        write("text.out", ["something else"])
        done = batch(path("a.jsonl"), path("text.out"))
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"no result of a batch", done.stderr)

    def test_pipes_do_as_well(self):
        lines = "".join(json.dumps(line) + "\n" for line in requests(5)).encode()
        done = self.good("-", "-", stdin=lines)
        numbers = sorted(int(json.loads(line)["id"].removeprefix("batch_req_")) for line in done.stdout.splitlines())
        self.assertEqual(numbers, [1, 2, 3, 4, 5])

    def test_a_slow_pipe_does_not_hold_up_what_came_before(self):
        job = subprocess.Popen(command("-", "-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)
        first = json.dumps({"prompt": [1, 2], "max_tokens": 2, "ignore_eos": True})
        job.stdin.write((first + '\n{"prompt": [3').encode())  # and half a line
        job.stdin.flush()
        self.assertEqual(json.loads(job.stdout.readline())["id"], "batch_req_1")
        job.stdin.write(b'], "max_tokens": 2, "ignore_eos": true}\n')
        job.stdin.flush()
        self.assertEqual(json.loads(job.stdout.readline())["id"], "batch_req_2")
        job.stdin.close()
        self.assertEqual(job.wait(WAIT_S), 0)
        job.stdout.close()

    def test_two_batches_never_share_a_file(self):
        source = write("long.jsonl", [{"prompt": [1], "max_tokens": 200, "ignore_eos": True} for _ in range(3000)])
        job = subprocess.Popen(command(source, path("shared.out")), stderr=subprocess.DEVNULL)
        waited = time.monotonic() + WAIT_S
        while time.monotonic() < waited and not os.path.exists(path("shared.out")):
            time.sleep(0.001)
        done = batch(source, path("shared.out"))
        job.kill()
        job.wait(WAIT_S)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"another batch", done.stderr)

    def test_a_full_disk_is_told_in_words(self):
        done = batch(write("full.jsonl", requests(2)), "/dev/full")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"No space left", done.stderr)


if __name__ == "__main__":
    unittest.main()
