#!/usr/bin/env python3
"""Tessera under Slurm: a slurmctld and a slurmd of our own, on this machine, for this test alone.

The commands under srun, and examples/batch.slurm, which Slurm ends before its time is over and which goes on in its next run.
Runs under CTest, which says where things are: TESSERA, TINY_GGUF, MPIEXEC, EXAMPLES. Standard library only. Skipped, with the
reason, where Slurm is not installed or cannot run.
"""
import ctypes
import getpass
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

TESSERA = os.environ["TESSERA"]
MPIRUN = [os.environ["MPIEXEC"], "--oversubscribe", "--bind-to", "none"]
WAIT_S = 120
SRUN = ["srun", "--mpi=pmix", "--ntasks=2"]

FOLDER = tempfile.TemporaryDirectory(prefix="tessera-slurm-")
MODEL = os.path.join(FOLDER.name, "tiny.gguf")

CONFIGURATION = """
ClusterName=tessera
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SchedulerParameters=sched_interval=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def path(name):
    return os.path.join(FOLDER.name, name)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until(what, is_so):
    """Waits for what must come."""
    end = time.monotonic() + WAIT_S
    while not is_so():
        if time.monotonic() > end:
            raise AssertionError("never: " + what)
        time.sleep(0.05)


def die_with_us():
    """Before a daemon begins: it ends when this test does, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Cluster:
    """One node, for whoever runs the test."""

    def __init__(self):
        self.daemons = {}

    def why_not(self):
        """Starts it; or in words why that cannot be."""
        host = socket.gethostname().split(".")[0]
        for name in ("state", "spool"):
            os.mkdir(path(name))
        with open(path("munge.key"), "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as key:
            key.write(os.urandom(128))
        with open(path("slurm.conf"), "w", encoding="utf-8") as file:
            file.write(CONFIGURATION.format(host=host, user=getpass.getuser(), folder=FOLDER.name,
                                            controller=free_port(), node=free_port()))
        os.environ["SLURM_CONF"] = path("slurm.conf")
        self.begin("munged", "--foreground", "--force", "--socket", path("munge.socket"), "--key-file", path("munge.key"),
                   "--pid-file", path("munged.pid"), "--seed-file", path("munged.seed"))
        return (self.lacks(lambda: os.path.exists(path("munge.socket")))
                or self.begin("slurmctld", "-D", "-c")
                or self.begin("slurmd", "-D", "-c")
                or self.lacks(lambda: run("sinfo", "--noheader", "--format=%T").stdout.strip() == b"idle"))

    def begin(self, *words):
        with open(path(words[0] + ".log"), "wb") as log:
            self.daemons[words[0]] = subprocess.Popen((find(words[0]), *words[1:]), stdin=subprocess.DEVNULL, stdout=log,
                                                      stderr=log, preexec_fn=die_with_us)

    def lacks(self, is_so):
        """Waits; or says which daemon is to blame."""
        try:
            until("the daemons", lambda: is_so() or any(one.poll() is not None for one in self.daemons.values()))
        except AssertionError as error:
            return str(error)
        for name, daemon in self.daemons.items():
            if daemon.poll() is not None:
                with open(path(name + ".log"), encoding="utf-8", errors="replace") as file:
                    return f"{name} cannot run here: {file.read()[-400:]}"
        return None

    def end(self):
        if "slurmd" in self.daemons:
            run("scancel", "--full", "--user", getpass.getuser())
            until("no jobs", lambda: run("squeue", "--noheader").stdout.strip() == b"")
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
            daemon.wait(WAIT_S)
        try:
            while True:  # what slurmd started for the jobs
                os.wait()
        except ChildProcessError:
            pass


def find(program):
    return shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin")


def run(*words, stdin=b""):
    return subprocess.run(words, input=stdin, capture_output=True, timeout=WAIT_S, check=False)


def why_not():
    for program in ("munged", "slurmctld", "slurmd", "srun", "sbatch"):
        if find(program) is None:
            return f"there is no {program} (Debian: slurmctld, slurmd, slurm-client, munge)"
    return None


def state(job):
    return run("squeue", "--noheader", "--job", job, "--states=all", "--format=%T").stdout.decode().strip()


class Slurm(unittest.TestCase):
    def test_generate_says_under_srun_what_it_says_under_mpirun(self):
        words = [TESSERA, "generate", "--model", MODEL, "--prompt-ids", "5,6,7", "--max-tokens", "12", "--ignore-eos", "--json"]
        there = run(*SRUN, *words)
        here = run(*MPIRUN, "-n", "3", *words)
        self.assertEqual(there.returncode, 0, there.stderr)
        self.assertIn(b"2 ranks", there.stderr)
        self.assertEqual(json.loads(there.stdout)["ids"], json.loads(here.stdout)["ids"])

    def test_copies_that_know_nothing_of_each_other_are_warned_of(self):
        done = run("srun", "--mpi=none", "--ntasks=2", TESSERA, "generate", "--model", MODEL, "--prompt-ids", "5",
                   "--max-tokens", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr.count(b"srun --mpi=pmix"), 1, done.stderr)

    def test_a_chat_keeps_what_was_said(self):
        lines = b"Hello\nAnd then?\n"
        words = [TESSERA, "chat", "--model", MODEL, "--max-tokens", "8", "--temperature", "0"]
        there = run(*SRUN, *words, "--verbose", stdin=lines)
        here = run(*words, stdin=lines)
        self.assertEqual((there.returncode, there.stdout), (0, here.stdout), there.stderr)
        self.assertRegex(there.stderr, rb"\n +1  device")  # what rank 1 held

    def test_serve_answers_from_rank_0(self):
        job = subprocess.Popen(SRUN + [TESSERA, "serve", "--model", MODEL, "--port", "0"], stderr=subprocess.PIPE)
        address = None
        while address is None:
            line = job.stderr.readline().decode()
            self.assertTrue(line, "the server has ended")
            address = re.search(r"http://127\.0\.0\.1:\d+/v1", line)
        body = json.dumps({"prompt": [5, 6, 7], "max_tokens": 4, "ignore_eos": True}).encode()
        with urllib.request.urlopen(address.group(0) + "/completions", body, timeout=WAIT_S) as answer:
            self.assertEqual(json.load(answer)["usage"]["completion_tokens"], 4)
        job.send_signal(signal.SIGTERM)  # srun hands it on
        rest = job.stderr.read()
        self.assertNotEqual(job.wait(WAIT_S), None, rest)
        job.stderr.close()

    def test_a_batch_ended_before_its_time_is_over_goes_on_in_the_next_run(self):
        """Slurm sends the signal by itself, some seconds on, for a job of one minute. The requests come through a pipe that gives
        only some of them before that, so that the first run can never be done."""
        lines = [json.dumps({"custom_id": f"n{i}", "prompt": [1 + i, 2, 3], "max_tokens": 5, "ignore_eos": True}) + "\n"
                 for i in range(9)]
        os.mkfifo(path("in.jsonl"))
        os.environ["PATH"] = os.path.dirname(TESSERA) + ":" + os.environ["PATH"]
        sent = run("sbatch", "--parsable", "--time=1", "--signal=TERM@60", "--output", path("job.log"),
                   os.path.join(os.environ["EXAMPLES"], "batch.slurm"), MODEL, path("in.jsonl"), path("out.jsonl"))
        self.assertEqual(sent.returncode, 0, sent.stderr)
        job = sent.stdout.decode().strip()

        with Pipe(path("in.jsonl")) as pipe:
            pipe.write("".join(lines[:4]))
            until("four results", lambda: self.n_results() == 4)
            until("the queue again", lambda: state(job) == "PENDING")
        with Pipe(path("in.jsonl")) as pipe:  # the job waits until its credentials are no longer good
            pipe.write("".join(lines))
        until("the end", lambda: state(job) == "COMPLETED")
        with open(path("out.jsonl"), encoding="utf-8") as file:
            found = [json.loads(line) for line in file]
        self.assertEqual(sorted(one["custom_id"] for one in found), [f"n{i}" for i in range(9)])
        self.assertEqual({one["response"]["status_code"] for one in found}, {200})
        with open(path("job.log"), encoding="utf-8") as file:
            self.assertIn("5 lines done, 0 of them with an error, 4 done before", file.read())

    @staticmethod
    def n_results():
        if not os.path.exists(path("out.jsonl")):
            return 0
        with open(path("out.jsonl"), "rb") as file:
            return file.read().count(b"\n")


class Pipe:
    """The writing end of a pipe with a name, opened when somebody reads."""

    def __init__(self, name):
        self.name = name
        self.file = None

    def __enter__(self):
        until("a reader", self.open)
        return self

    def open(self):
        try:
            self.file = os.open(self.name, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # ENXIO: nobody reads yet
            return False
        os.set_blocking(self.file, True)
        return True

    def write(self, text):
        os.write(self.file, text.encode())

    def __exit__(self, *ignored):
        os.close(self.file)


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: whose parent ends becomes ours
    reason = why_not()
    cluster = Cluster()
    try:
        reason = reason or cluster.why_not()
        if reason is None:
            subprocess.run([os.environ["TINY_GGUF"], "9/3", "1", MODEL], check=True, timeout=WAIT_S)
            status = 0 if unittest.main(exit=False).result.wasSuccessful() else 1
        else:
            print("skipped:", reason)
            status = 77
    finally:
        cluster.end()
        FOLDER.cleanup()
    sys.exit(status)
