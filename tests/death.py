"""How a job dies: death.py MPIRUN JOB N_RANKS [flags of mpirun...]

Starts tests/death_job.c, lets something happen to it, and holds every case to the same four promises: it is over within
5 s, no process of it is left, the exit status is not 0, and stderr says which rank was lost and at what. Or, asked
politely: it ends by itself.
"""
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

MPIRUN, JOB, N_RANKS = sys.argv[1], sys.argv[2], int(sys.argv[3])
FLAGS = sys.argv[4:]
LIMIT_S = 5.0
START_S = 60.0
SANITIZED = os.environ.get("TSR_TEST_SANITIZED") == "1"


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class Job:
    def __init__(self, mode, fault="", n_ranks=N_RANKS, alone=False):
        self.out = tempfile.TemporaryFile()
        self.err = tempfile.TemporaryFile()
        environment = dict(os.environ, TSR_FAULT=fault)
        command = [JOB, mode] if alone else [MPIRUN, *FLAGS, "-n", str(n_ranks), JOB, mode]
        self.n_ranks = 1 if alone else n_ranks
        self.began = None
        self.process = subprocess.Popen(command, stdout=self.out, stderr=self.err, env=environment,
                                        start_new_session=True)
        self.pids = {}
        end = time.monotonic() + START_S
        while len(self.pids) < self.n_ranks and time.monotonic() < end:
            self.pids = {int(r): int(p) for r, p in
                         re.findall(r"rank (\d+) process (\d+)\n", self.text(self.out))}
            if fault and self.process.poll() is not None:
                break
            time.sleep(0.01)
        self.began = time.monotonic()

    @staticmethod
    def text(file):
        # os.pread: the offset is shared with the processes that write.
        return os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace")

    def finish(self):
        """The exit status and stderr; fails when it is not over in time or leaves a process behind."""
        problems = []
        deadline = self.began + LIMIT_S
        try:
            status = self.process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            problems.append(f"still running after {LIMIT_S} s")
            status = None
        left = list(self.pids.values())
        while left and time.monotonic() < deadline:
            left = [pid for pid in left if alive(pid)]
            time.sleep(0.01)
        if left:
            problems.append(f"processes {left} are left")
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        if status is None:
            self.process.kill()
            self.process.wait()
        self.seconds = time.monotonic() - self.began
        return status, problems


def check(name, job, expected, clean=False, status_is_zero=None):
    status, problems = job.finish()
    error = job.text(job.err)
    output = job.text(job.out)
    if status_is_zero is not None and (status == 0) != status_is_zero:
        problems.append(f"exit status {status}")
    for pattern in expected:
        if not re.search(pattern, error):
            problems.append(f"nothing on stderr like: {pattern}")
    if len(re.findall(r"is lost:", error)) > 1:
        problems.append("reported more than once")
    if clean and "ended as asked" not in output:
        problems.append("the leader did not end as asked")
    if clean and "is lost" in error:
        problems.append("a rank was taken for lost")
    print(f"{'FAILED' if problems else 'ok':7s}{name} ({job.seconds:.1f} s)", flush=True)
    if problems:
        print("\n".join("    " + p for p in problems))
        print("    stderr:\n" + error)
    return not problems


def lost(rank, job, how, at):
    pid = job.pids.get(rank, r"\d+")
    return [rf"rank {rank} of {job.n_ranks} \(process {pid}\) is lost: .*{how}.*, while {at}; ending"]


def main():
    good = True
    last = N_RANKS - 1
    for kind, how, at in (("kill", "gone", "running step 50"),
                          ("stop", "stopped", "running step 50"),
                          ("page", "could not be read", "running step 50"),
                          ("segv", "gone" if SANITIZED else "invalid access", "running step 50")):
        job = Job("steps", f"{last}:{kind}@50")
        good &= check(f"a rank meets: {kind}", job, lost(last, job, how, at), status_is_zero=False)
    job = Job("steps", f"{last}:alloc@50")
    good &= check("a rank meets: alloc", job,
                  [rf"\[rank {last}/{N_RANKS}\] .*no room for 576 values \(out of memory\)"],
                  status_is_zero=False)
    job = Job("steps", "0:kill@50")
    good &= check("the leader is killed", job, lost(0, job, "gone", "running step 50"),
                  status_is_zero=False)
    if N_RANKS == 2:  # what does not depend on how many there are
        good = polite_and_idle(good, last)
        good = alone(good)
    return 0 if good else 1


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def polite_and_idle(good, last):
    job = Job("idle")
    time.sleep(0.5)
    before = cpu_seconds(job.pids[last])
    time.sleep(1.0)
    used = cpu_seconds(job.pids[last]) - before
    if used > 0.5:  # of one second: a rank that spins takes all of it
        print(f"FAILED an idle follower used {used:.2f} s of its core in 1 s")
        good = False
    job.began = time.monotonic()
    os.kill(job.pids[last], signal.SIGKILL)
    good &= check("a follower is killed while all are idle", job,
                  lost(last, job, "gone", r"waiting for step \d+"), status_is_zero=False)
    job = Job("idle")
    time.sleep(0.3)
    job.began = time.monotonic()
    os.kill(job.pids[0], signal.SIGSTOP)
    good &= check("the leader is stopped while all are idle", job,
                  lost(0, job, "stopped", r"running step \d+"), status_is_zero=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        job = Job("steps")
        time.sleep(0.2)
        job.began = time.monotonic()
        job.process.send_signal(number)
        good &= check(f"the launcher gets {number.name}", job, [], clean=True)
    job = Job("idle")
    time.sleep(0.2)
    job.began = time.monotonic()
    os.kill(job.pids[last], signal.SIGTERM)
    good &= check("one rank gets SIGTERM", job, [], clean=True, status_is_zero=True)
    job = Job("steps")
    time.sleep(0.2)
    job.began = time.monotonic()
    job.process.kill()
    # What the ranks say now is lost: their stderr led through the launcher.
    good &= check("the launcher is killed", job, [], status_is_zero=False)
    job = Job("steps")
    time.sleep(0.2)
    for pid in job.pids.values():
        os.kill(pid, signal.SIGSTOP)
    time.sleep(3.5)
    for pid in job.pids.values():
        os.kill(pid, signal.SIGCONT)
    time.sleep(0.5)
    job.began = time.monotonic()
    job.process.send_signal(signal.SIGTERM)
    good &= check("a job suspended as a whole goes on", job, [], clean=True)
    return good


def alone(good):
    job = Job("steps", alone=True)
    job.process.send_signal(signal.SIGINT)
    good &= check("a process alone gets SIGINT", job, [], clean=True, status_is_zero=True)
    job = Job("deaf", alone=True)
    job.process.send_signal(signal.SIGINT)
    time.sleep(0.4)
    job.process.send_signal(signal.SIGINT)
    good &= check("a second signal ends at once", job, [], status_is_zero=False)
    job = Job("steps", "0:page@50", alone=True)
    good &= check("a process alone reads a lost page", job,
                  [r"rank 0 of 1 .*could not be read"], status_is_zero=False)
    return good


sys.exit(main())
