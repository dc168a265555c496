"""A `tessera serve` for tests, on a port of its own. CTest says where things are: TESSERA, MPIEXEC."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading

WAIT_S = 100
MPIRUN = [os.environ["MPIEXEC"], "--oversubscribe", "--bind-to", "none", "-n"]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as link:
        return link.getsockname()[1]


def state_of(pid):
    """The state of a process, a letter, and the process that started it; X once there is none."""
    try:
        with open("/proc/%d/stat" % pid, encoding="ascii", errors="replace") as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
            return state, int(parent)
    except OSError:
        return "X", 0


def lives(pid):
    return state_of(pid)[0] not in "ZX"


def children(pid):
    """The processes that a process has started and that live."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit() and state_of(int(name))[1] == pid and lives(int(name)))


class Server:
    def __init__(self, model, *words, ranks=0, port=0):
        launcher = MPIRUN + [str(ranks)] if ranks else []
        self.job = subprocess.Popen(
            launcher + [os.environ["TESSERA"], "serve", "--model", model, "--port", str(port), *words], stderr=subprocess.PIPE)
        self.said = []
        self.port = None
        while self.port is None:
            line = self.job.stderr.readline().decode(errors="replace")
            if not line:
                raise RuntimeError("the server has ended: " + "".join(self.said))
            self.said.append(line)
            found = re.search(r"https?://(?:127\.0\.0\.1|0\.0\.0\.0):(\d+)/v1", line)
            self.port = int(found.group(1)) if found else None
        self.reader = threading.Thread(target=lambda: self.said.extend(one.decode(errors="replace") for one in self.job.stderr))
        self.reader.start()
        self.url = "http://127.0.0.1:%d" % self.port

    def ask(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method, path, data, headers or {})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, text

    def post(self, path, body, headers=None):
        status, text = self.ask("POST", path, body, headers)
        return status, json.loads(text)

    def metric(self, name):
        text = self.ask("GET", "/metrics")[1].decode()
        return float(re.search(r"(?m)^%s (\S+)$" % re.escape(name), text).group(1))

    def end(self):
        """Its exit status."""
        self.job.send_signal(signal.SIGTERM)
        status = self.job.wait(WAIT_S)
        self.reader.join()
        self.job.stderr.close()
        return status
