#!/usr/bin/env python3
"""Proves that tests/reference_check.py passes what is right and sees what is wrong.

A stand-in for tessera answers with the reference's own numbers, or with one of them spoilt. It is this same file,
started with the variable STAND_IN naming the fault.
"""
import json
import math
import os
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "data", "reference")


def answer(ids):
    """What the reference says about a list of ids: textA, or a prompt with its continuation."""
    with open(os.path.join(DATA, "textA.json"), encoding="utf-8") as file:
        text = json.load(file)
    if text["ids"] == ids:
        return text["logprob"], text["argmax"], text["margin"]
    with open(os.path.join(DATA, "greedy.jsonl"), encoding="utf-8") as file:
        for line in map(json.loads, file):
            prompt = line["prompt_ids"]
            if prompt + line["ids"] == ids:
                margins = [step["margin"] for step in line["steps"]]
                return ([-1.5] * (len(ids) - 1), [0] * (len(prompt) - 1) + line["ids"] + [0],
                        [0.0] * (len(prompt) - 1) + margins + [0.0])
    sys.exit("the stand-in knows no such ids")


def stand_in(fault, arguments):
    if fault == "ends":
        print("something went by", file=sys.stderr)
        sys.exit("no such model")
    if fault == "chatter":
        print("loading ...")
        return
    logprob, argmax, margin = answer([int(i) for i in arguments[arguments.index("--ids") + 1].split(",")])
    logprob, argmax = list(logprob), list(argmax)
    if fault == "near tie":             # the nearest of all
        argmax[min((i for i in range(len(margin)) if margin[i] > 0), key=lambda i: margin[i])] += 1
    elif fault.startswith("flips "):    # every position whose margin lies in a range
        low, high = map(float, fault.split()[1:])
        argmax = [a + (low < m < high) for a, m in zip(argmax, margin)]
    elif fault == "last":               # the last position that counts
        argmax[-2] += 1
    elif fault.startswith("logprob "):
        logprob[700 if len(logprob) > 700 else 3] -= float(fault.split()[1])
    elif fault.startswith("all "):
        logprob = [p - float(fault.split()[1]) for p in logprob]
    elif fault == "nan":
        logprob[5] = math.nan
    elif fault == "short":
        argmax.pop()
    mean = -math.fsum(logprob) / len(logprob)
    print(json.dumps({"tokens": len(argmax), "mean_nll": mean + (0.1 if fault == "mean" else 0),
                      "perplexity": math.exp(mean) if fault != "nan" else 1.0, "logprob": logprob, "argmax": argmax}))


class ReferenceCheck(unittest.TestCase):
    def run_check(self, fault, *arguments, model="model"):
        environment = dict(os.environ, STAND_IN=fault, TSR_TEST_MODEL=model)
        return subprocess.run([sys.executable, os.path.join(HERE, "reference_check.py"), "--tessera",
                               os.path.abspath(__file__), *arguments],
                              env=environment, capture_output=True, text=True, check=False)

    def passes(self, fault, *arguments):
        done = self.run_check(fault, *arguments)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def fails(self, said, fault, *arguments):
        done = self.run_check(fault, *arguments)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertEqual(done.stderr, "")
        bad = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
        self.assertTrue(bad and said in bad[0], done.stdout)

    def test_the_references_own_numbers_pass(self):
        for activations in ("f32", "int8"):
            for kv_dtype in ("f32", "f16"):
                self.passes("none", "--activations", activations, "--kv-dtype", kv_dtype)
        for kv_dtype in ("bf16", "fp8", "int8", "int4", "int2"):
            self.passes("none", "--only", "textA", "--kv-dtype", kv_dtype)

    def test_without_a_model_it_is_skipped(self):
        done = self.run_check("none", model="")
        self.assertEqual(done.returncode, 77)
        self.assertIn("skipped: TSR_TEST_MODEL is not set", done.stdout)

    def test_a_near_tie_may_fall_either_way(self):
        self.passes("near tie", "--only", "textA")
        self.passes("flips 0.0 0.1", "--only", "greedy", "--activations", "int8", "--longest", "40")

    def test_a_clear_token_may_not(self):
        self.fails("argmax at", "flips 0.02 0.025", "--only", "textA")
        self.passes("flips 0.02 0.025", "--only", "textA", "--kv-dtype", "f16")
        self.fails("generated token", "flips 0.75 1.2", "--only", "greedy", "--activations", "int8")
        self.fails("generated token 47", "last", "--only", "greedy", "--longest", "5")

    def test_too_many_near_ties_are_too_many(self):
        self.fails("may", "flips 0.0 0.69", "--only", "greedy", "--activations", "int8")

    def test_one_wrong_probability_is_seen(self):
        self.fails("logprob at 700", "logprob 0.02", "--only", "textA")
        self.passes("logprob 0.005", "--only", "textA")

    def test_a_shifted_mean_is_seen(self):
        self.fails("mean_nll", "all 0.001", "--only", "textA")
        self.passes("all 0.001", "--only", "textA", "--activations", "int8")
        self.fails("mean_nll", "all 0.013", "--only", "textA", "--activations", "int8")

    def test_numbers_that_contradict_each_other_are_seen(self):
        self.fails("the mean of its own logprob", "mean", "--only", "textA")
        self.fails("logprob at 5 is nan", "nan", "--only", "textA")
        self.fails("argmax should be a list of 1497, it has 1496", "short", "--only", "textA")

    def test_ranks_are_started_by_the_launcher(self):
        launcher = """sh -c 'test "$1 $2" = "-n 3" && shift 2 && exec "$@"' mpirun"""
        self.passes("none", "--only", "textA", "--ranks", "3", "--mpirun", launcher)
        self.fails("ended with 1", "none", "--only", "textA", "--ranks", "2", "--mpirun", launcher)

    def test_a_failing_program_is_quoted(self):
        self.fails("ended with 1, saying: no such model", "ends", "--only", "textA")
        self.fails("printed no JSON but: 'loading ...", "chatter", "--only", "greedy")


if __name__ == "__main__":
    if "STAND_IN" in os.environ:
        stand_in(os.environ["STAND_IN"], sys.argv)
    else:
        unittest.main()
