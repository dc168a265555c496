#!/usr/bin/env python3
"""A job on two hosts: the tokens of one, and its end when one of them is lost.

The hosts are network namespaces with a name, an address and a /dev/shm of their own, joined by a virtual switch; mpirun reaches
the second one with a script in place of ssh. Runs under CTest, which says where things are: TESSERA, TINY_GGUF, MPIEXEC.
Skipped, with the reason, where namespaces cannot be made: it takes root.
"""
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

TESSERA = os.environ["TESSERA"]
MPIEXEC = os.environ["MPIEXEC"]
WAIT_S = 60
GONE_S = 12  # in which a job is to be over; 3 of it make silence
TAG = str(os.getpid())

FOLDER = tempfile.TemporaryDirectory(prefix="tessera-hosts-")
MODEL = os.path.join(FOLDER.name, "tiny.gguf")
AGENT = os.path.join(FOLDER.name, "agent")
LONG = ("generate", "--model", MODEL, "--prompt-ids", "1,2,3", "--max-tokens", "1000000000", "--ctx", "1000000000", "--ignore-eos")


def run(*words, **more):
    done = subprocess.run(words, capture_output=True, timeout=WAIT_S, check=False, **more)
    if done.returncode != 0:
        raise RuntimeError("%s: %s" % (" ".join(words), done.stderr.decode().strip()))
    return done.stdout.decode()


class Host:
    """A process that keeps the namespaces of a host."""

    def __init__(self, i):
        self.name = "tsrnode%d" % i
        self.keeper = subprocess.Popen(
            ["unshare", "--net", "--uts", "--mount", "sh", "-c",
             "hostname %s && mount -t tmpfs tmpfs /dev/shm && echo ready && exec sleep 1000" % self.name],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if self.keeper.stdout.readline() != b"ready\n":
            raise RuntimeError(self.keeper.stderr.read().decode().strip())
        near, far = "tn%d-%s" % (i, TAG), "tf%d-%s" % (i, TAG)
        run("ip", "link", "add", near, "type", "veth", "peer", "name", far)
        run("ip", "link", "set", near, "netns", "tsr" + TAG)
        run("ip", "-n", "tsr" + TAG, "link", "set", near, "master", "switch", "up")
        run("ip", "link", "set", far, "netns", str(self.keeper.pid))
        for words in (("link", "set", far, "name", "eth0"), ("addr", "add", "10.77.0.%d/24" % i, "dev", "eth0"),
                      ("link", "set", "eth0", "up"), ("link", "set", "lo", "up")):
            run(*self.inside("ip", *words))

    def inside(self, *words):
        return ("nsenter", "--target", str(self.keeper.pid), "--net", "--uts", "--mount", "--", *words)

    def processes(self, name):
        """Those with this name that live on this host."""
        mine = os.readlink("/proc/%d/ns/net" % self.keeper.pid)
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/stat" % pid, encoding="ascii", errors="replace") as file:
                    own, rest = file.read().split("(", 1)[1].rsplit(")", 1)
                if own == name and rest.split()[0] not in "ZX" and os.readlink("/proc/%s/ns/net" % pid) == mine:
                    found.append(int(pid))
            except OSError:
                pass
        return found


def why_not():
    """Makes the hosts; or in words why that cannot be."""
    try:
        run("ip", "netns", "add", "tsr" + TAG)
        run("ip", "-n", "tsr" + TAG, "link", "add", "switch", "type", "bridge")
        run("ip", "-n", "tsr" + TAG, "link", "set", "switch", "up")
        for i in (1, 2):
            hosts.append(Host(i))
    except (OSError, RuntimeError) as error:
        return "no hosts can be made here: %s" % error
    with open(AGENT, "w", encoding="ascii") as file:
        file.write("#!/bin/sh\ncase $1 in\n")
        for host in hosts:
            file.write("%s) shift; exec %s sh -c \"$*\" ;;\n" % (host.name, " ".join(host.inside())))
        file.write("esac\n")
    os.chmod(AGENT, 0o755)
    return None


def start(n_ranks, *words):
    """From the first host, ranks on both in turns."""
    places = ",".join("%s:%d" % (host.name, n_ranks) for host in hosts)
    return subprocess.Popen(
        hosts[0].inside(MPIEXEC, "--mca", "plm_rsh_agent", AGENT, "--mca", "btl_tcp_if_include", "eth0", "--mca",
                        "oob_tcp_if_include", "eth0", "--host", places, "--map-by", "node", "--bind-to", "none", "-n", str(n_ranks),
                        TESSERA, *words),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def lives(pid):
    try:
        with open("/proc/%d/stat" % pid, encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class Hosts(unittest.TestCase):
    def test_the_tokens_are_those_of_one_host(self):
        words = ("generate", "--model", MODEL, "--prompt-ids", "1,2,3", "--max-tokens", "40", "--ignore-eos", "--json")
        alone = run(TESSERA, *words).split('"timings"')[0]
        for n_ranks in (2, 3, 4):
            out, err = start(n_ranks, *words).communicate(timeout=WAIT_S)
            self.assertEqual(out.decode().split('"timings"')[0], alone, err.decode())
            self.assertNotIn("notice", err.decode())  # the hosts watch each other

    def lose(self, n_ranks, trouble, names):
        """A job in full swing; a trouble with the second host or the first; nothing of it is left, and words tell why."""
        job = start(n_ranks, *LONG)
        job.stdout.read(200)
        ranks = [host.processes("tessera") for host in hosts]
        self.assertEqual(sum(map(len, ranks)), n_ranks)
        trouble(ranks)
        end = time.monotonic() + GONE_S
        left = ranks[0] + ranks[1]
        while left and time.monotonic() < end:
            left = [pid for pid in left if lives(pid)]
            time.sleep(0.02)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        try:
            said = job.communicate(timeout=5)[1].decode()
        except subprocess.TimeoutExpired:  # where the network is down the launcher waits for long, on both sides
            for pid in [job.pid] + [pid for host in hosts for pid in host.processes("orted")]:
                os.kill(pid, signal.SIGKILL)
            said = job.communicate()[1].decode()
        self.assertEqual(left, [], said)
        self.assertNotEqual(job.returncode, 0)
        if names:
            self.assertRegex(said, names)

    def test_a_rank_that_is_killed(self):
        self.lose(2, lambda ranks: os.kill(ranks[1][0], signal.SIGKILL), "tsrnode2")
        self.lose(2, lambda ranks: os.kill(ranks[0][0], signal.SIGKILL), None)  # who tells it is on the other side
        self.lose(4, lambda ranks: os.kill(ranks[1][1], signal.SIGKILL), r"rank \d of 4|tsrnode2")

    def test_a_rank_that_is_stopped(self):
        self.lose(2, lambda ranks: os.kill(ranks[1][0], signal.SIGSTOP),
                  r"host tsrnode2 \(rank 1\) is lost: it gave no sign of life for 3 s, while .*step \d+")
        self.lose(3, lambda ranks: os.kill(ranks[0][0], signal.SIGSTOP), r"rank 0 of 3|tsrnode1 \(rank 0")

    def test_a_host_whose_network_is_down(self):
        try:
            self.lose(3, lambda ranks: run(*hosts[1].inside("ip", "link", "set", "eth0", "down")), r"host tsrnode2 \(rank 1\) is lost")
        finally:
            run(*hosts[1].inside("ip", "link", "set", "eth0", "up"))


hosts = []
if __name__ == "__main__":
    try:
        reason = why_not()
        if reason is not None:
            print("skipped:", reason)
            sys.exit(77)
        subprocess.run([os.environ["TINY_GGUF"], "9/3", "1", MODEL], check=True, timeout=WAIT_S)
        status = 0 if unittest.main(exit=False).result.wasSuccessful() else 1
    finally:
        for one in hosts:
            one.keeper.kill()
            one.keeper.wait()
        subprocess.run(["ip", "netns", "del", "tsr" + TAG], capture_output=True, check=False)
        FOLDER.cleanup()
    sys.exit(status)
