#!/usr/bin/env python3
"""Holds a tessera binary to the reference numbers of the real model (tests/data/reference/README.md).

    reference_check.py --tessera build/launch/tessera [--model M] [--ranks N] [--mpirun "mpirun ..."]
                       [--activations f32|int8] [--kv-dtype T] [--only textA|greedy] [--longest N]

Everything goes through `tessera perplexity --ids LIST --json`, so every position is a test of its own and one wrong
token does not hide those behind it:
    textA   the mean negative log-likelihood, each token's log-probability and the best token at each position
    greedy  the best token at each generated position of ten prompts, given the reference's own tokens so far

A position may differ where the reference itself was nearly undecided: where its best logit stood no more than a margin
above the second. How much may differ depends on what is computed with: see BOUNDS.

The model is that of --model, or of the variable TSR_TEST_MODEL; without either this is skipped (exit 77). Exit 0: all
agree; 1: something differs, a line each; 2: usage.
"""
import argparse
import json
import math
import os
import shlex
import subprocess
import sys

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "reference")

# (activations, kv_dtype): mean_nll  how far from the reference's mean over textA
#                          logprob   how far each log-probability of textA (None: not looked at)
#                          margin    positions above it must agree
#                          rate      the largest part of all greedy positions that may differ, at any margin
BOUNDS = {
    ("f32", "f32"): {"mean_nll": 0.0005, "logprob": 0.01, "margin": 0.01, "rate": 0.04},
    ("f32", "f16"): {"mean_nll": 0.0005, "logprob": 0.05, "margin": 0.05, "rate": 0.04},
    ("int8", "f32"): {"mean_nll": 0.012, "logprob": None, "margin": 0.7, "rate": 0.04},
    ("int8", "f16"): {"mean_nll": 0.012, "logprob": None, "margin": 0.7, "rate": 0.04},
}
# Keys and values of other types: how much worse than f32 ones the mean over textA may be. Single positions are not held to
# anything, only the text as a whole.
LOSSES = {"bf16": 0.0005, "int8": 0.001, "fp8": 0.005, "int4": 0.01, "int2": 0.1}
MEAN_NLL = 3.106233
for name, loss in LOSSES.items():
    BOUNDS["f32", name] = {"mean_nll": loss * MEAN_NLL, "logprob": None, "margin": math.inf, "rate": 1}


class Wrong(Exception):
    """What differed, in one line."""


def finite(number):
    """Is it a number that can be compared? JSON knows null and Python's reader also NaN."""
    return isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number)


def perplexity(options, ids):
    """The object that tessera prints for a list of ids, its shape checked."""
    command = shlex.split(options.mpirun) + ["-n", str(options.ranks)] if options.ranks > 1 else []
    command += [options.tessera, "perplexity", "--model", options.model, "--ids", ",".join(map(str, ids)), "--json",
                "--activations", options.activations, "--kv-dtype", options.kv_dtype]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout, check=False)
    except subprocess.TimeoutExpired:
        raise Wrong(f"tessera perplexity did not end in {options.timeout} s") from None
    except OSError as error:
        raise Wrong(f"cannot run {command[0]}: {error.strerror}") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise Wrong(f"tessera perplexity ended with {done.returncode}, saying: {said}")
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise Wrong(f"tessera perplexity printed no JSON but: {done.stdout[:60]!r}") from None
    if not isinstance(found, dict):
        raise Wrong("tessera perplexity printed JSON but no object")
    for key, n in (("argmax", len(ids)), ("logprob", len(ids) - 1)):
        got = found.get(key)
        if not isinstance(got, list) or len(got) != n:
            raise Wrong(f"{key} should be a list of {n}" +
                        (f", it has {len(got)}" if isinstance(got, list) else f" and is {got!r}"))
    bad = next((i for i, p in enumerate(found["logprob"]) if not finite(p) or p > 0), None)
    if bad is not None:
        raise Wrong(f"logprob at {bad} is {found['logprob'][bad]!r}")
    if found.get("tokens") != len(ids):
        raise Wrong(f"tokens is {found.get('tokens')!r}, {len(ids)} were given")
    mean = -math.fsum(found["logprob"]) / (len(ids) - 1)
    if not finite(found.get("mean_nll")) or abs(found["mean_nll"] - mean) > 1e-5:
        raise Wrong(f"mean_nll is {found.get('mean_nll')!r}, the mean of its own logprob is {mean:.6f}")
    if not finite(found.get("perplexity")) or abs(found["perplexity"] / math.exp(mean) - 1) > 1e-4:
        raise Wrong(f"perplexity is {found.get('perplexity')!r}, e to its own mean_nll is {math.exp(mean):.6f}")
    return found


def differing(got, want, margins, bound):
    """Positions that differ, and the first of those where the reference stood above the bound (None if there is none)."""
    places = [i for i, (g, w) in enumerate(zip(got, want)) if g != w]
    return places, next((i for i in places if margins[i] > bound), None)


def check_text(options, bounds):
    with open(os.path.join(DATA, "textA.json"), encoding="utf-8") as file:
        text = json.load(file)
    found = perplexity(options, text["ids"])
    want = text["mean_nll"]["f64"]
    if abs(found["mean_nll"] - want) > bounds["mean_nll"]:
        raise Wrong(f"mean_nll {found['mean_nll']:.6f}, reference {want:.6f}: "
                    f"{abs(found['mean_nll'] - want):.6f} apart, {bounds['mean_nll']} allowed")
    errors = [abs(g - w) for g, w in zip(found["logprob"], text["logprob"])]
    worst = max(range(len(errors)), key=errors.__getitem__)
    if bounds["logprob"] is not None and errors[worst] > bounds["logprob"]:
        raise Wrong(f"logprob at {worst} is {found['logprob'][worst]:.5f}, reference {text['logprob'][worst]:.5f}: "
                    f"{errors[worst]:.5f} apart, {bounds['logprob']} allowed")
    places, bad = differing(found["argmax"], text["argmax"], text["margin"], bounds["margin"])
    if bad is not None:
        raise Wrong(f"argmax at {bad} is {found['argmax'][bad]}, reference {text['argmax'][bad]} by a margin of "
                    f"{text['margin'][bad]:.4f} (up to {bounds['margin']} may differ)")
    return (f"mean_nll {found['mean_nll']:.6f} (reference {want:.6f}), largest logprob error {errors[worst]:.5f}, "
            f"{len(places)} of {len(text['argmax'])} best tokens differ")


def check_greedy(options, bounds):
    with open(os.path.join(DATA, "greedy.jsonl"), encoding="utf-8") as file:
        lines = [json.loads(line) for line in file if line.strip()]
    n_positions = n_differing = 0
    for line in lines:
        prompt, ids = line["prompt_ids"], line["ids"]
        if len(prompt) > options.longest:
            continue
        try:
            found = perplexity(options, prompt + ids)
        except Wrong as wrong:
            raise Wrong(f"{line['name']}: {wrong}") from None
        # After the last token of the prompt comes the first generated one; after the last id nothing is asked.
        got = found["argmax"][len(prompt) - 1:-1]
        margins = [step["margin"] for step in line["steps"]]
        places, bad = differing(got, ids, margins, bounds["margin"])
        if bad is not None:
            raise Wrong(f"{line['name']}: generated token {bad} is {got[bad]}, reference {ids[bad]} by a margin of "
                        f"{margins[bad]:.4f} (up to {bounds['margin']} may differ)")
        n_positions += len(ids)
        n_differing += len(places)
    if n_positions == 0:
        raise Wrong(f"no prompt has at most {options.longest} tokens")
    if n_differing > bounds["rate"] * n_positions:
        raise Wrong(f"{n_differing} of {n_positions} generated tokens differ, at most {bounds['rate']:.0%} may")
    return f"{n_differing} of {n_positions} generated tokens differ"


CHECKS = {"textA": check_text, "greedy": check_greedy}


def main():
    parser = argparse.ArgumentParser(description="Holds a tessera binary to the reference numbers of the real model.")
    parser.add_argument("--tessera", required=True, help="the binary")
    parser.add_argument("--model", default=os.environ.get("TSR_TEST_MODEL", ""), help="default: $TSR_TEST_MODEL")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--mpirun", default="mpirun", help="how to start ranks, with flags (default: mpirun)")
    parser.add_argument("--activations", default="f32", choices=("f32", "int8"))
    parser.add_argument("--kv-dtype", default="f32", choices=sorted({kv for _, kv in BOUNDS}))
    parser.add_argument("--only", choices=CHECKS, help="one of the two checks")
    parser.add_argument("--longest", type=int, default=10 ** 9, help="leave out prompts of more tokens than this")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one run (default: 600)")
    options = parser.parse_args()
    if not options.model:
        print("skipped: TSR_TEST_MODEL is not set (tests/run.sh gets the model)")
        return 77
    if options.ranks < 1:
        parser.error("--ranks must be 1 or more")
    bounds = BOUNDS.get((options.activations, options.kv_dtype))
    if bounds is None:
        parser.error(f"a cache of {options.kv_dtype} is looked at with f32 activations only")
    about = f"{options.activations} activations, {options.kv_dtype} cache, {options.ranks} rank(s)"
    failed = False
    for name, check in CHECKS.items():
        if options.only in (None, name):
            try:
                print(f"ok     {name}, {about}: {check(options, bounds)}", flush=True)
            except Wrong as wrong:
                print(f"FAILED {name}, {about}: {wrong}", flush=True)
                failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
