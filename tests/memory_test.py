#!/usr/bin/env python3
"""Holds the peak resident memory of every rank to its promise: its shard of the weights, its keys and values, and 100 MiB.

    memory_test.py --tessera build/tessera --model M [--mpirun "mpirun ..."]

Each rank runs under this script again (--rank-of FILE), which waits for it and notes what the system says of it.
"""
import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile

ALLOWED_BYTES = 100 << 20
PROMPT_TOKENS = 2048
BLOCK_TOKENS = 64


def run_as_rank(folder, command):
    child = subprocess.Popen(command)
    _, status, usage = os.wait4(child.pid, 0)
    rank = os.environ.get("OMPI_COMM_WORLD_RANK", "0")
    with open(os.path.join(folder, rank), "w", encoding="utf-8") as file:
        file.write(str(usage.ru_maxrss * 1024))
    return os.waitstatus_to_exitcode(status)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tessera", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--mpirun", default="mpirun")
    options = parser.parse_args()
    n_bad = 0
    ids = ",".join(str(20 + i * 7919 % 40000) for i in range(PROMPT_TOKENS))

    for n_ranks in (1, 2, 3):
        shares = json.loads(subprocess.run(
            [options.tessera, "inspect", options.model, "--ranks", str(n_ranks), "--json"],
            check=True, capture_output=True).stdout)["ranks"]
        with tempfile.TemporaryDirectory() as folder:
            launch = shlex.split(options.mpirun) + ["-n", str(n_ranks)] if n_ranks > 1 else []
            subprocess.run(
                launch + [sys.executable, __file__, "--rank-of", folder, options.tessera, "generate", "--quiet",
                          "--model", options.model, "--prompt-ids", ids, "--max-tokens", "8", "--ignore-eos"],
                check=True, stdout=subprocess.DEVNULL)
            for rank, share in enumerate(shares):
                with open(os.path.join(folder, str(rank)), encoding="utf-8") as file:
                    peak = int(file.read())
                tokens = (PROMPT_TOKENS + 8 + BLOCK_TOKENS - 1) // BLOCK_TOKENS * BLOCK_TOKENS
                promised = share["weight_bytes"] + tokens * share["kv_bytes_per_token"] + ALLOWED_BYTES
                good = peak <= promised
                n_bad += not good
                print(f"{'ok    ' if good else 'FAILED'} rank {rank} of {n_ranks}: peak {peak / 2**20:.0f} MiB, "
                      f"promised {promised / 2**20:.0f} MiB")
    return 1 if n_bad else 0


if __name__ == "__main__":
    if len(sys.argv) > 3 and sys.argv[1] == "--rank-of":
        sys.exit(run_as_rank(sys.argv[2], sys.argv[3:]))
    sys.exit(main())
