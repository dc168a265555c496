"""The program as tests run it, with a tiny model of theirs. CTest says where things are: TESSERA, TINY_GGUF, MPIEXEC."""
import json
import os
import subprocess
import tempfile
import unittest

TESSERA = os.environ["TESSERA"]
MPIRUN = [os.environ["MPIEXEC"], "--oversubscribe", "--bind-to", "none", "-n"]
WAIT_S = 100
MODELS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data", "models")

FOLDER = tempfile.TemporaryDirectory(prefix="tessera-program-")


def path_of(name):
    return os.path.join(FOLDER.name, name)


def write(name, data):
    with open(path_of(name), "wb") as file:
        file.write(data)
    return path_of(name)


MODEL = path_of("tiny.gguf")


def setUpModule():
    subprocess.run([os.environ["TINY_GGUF"], "9/3", "1", MODEL], check=True, timeout=WAIT_S)


def tearDownModule():
    FOLDER.cleanup()


def run(*words, ranks=0, stdin=b""):
    launcher = MPIRUN + [str(ranks)] if ranks else []
    return subprocess.run(launcher + [TESSERA, *words], input=stdin, capture_output=True, timeout=WAIT_S, check=False)


class Case(unittest.TestCase):
    def good(self, *words, **how):
        done = run(*words, **how)
        self.assertEqual(done.returncode, 0, (words, done.stderr))
        return done

    def says(self, status, pattern, *words, **how):
        """Ends with the status, with nothing on stdout and the pattern on stderr."""
        done = run(*words, **how)
        self.assertEqual(done.returncode, status, (words, done.stderr))
        self.assertEqual(done.stdout, b"", words)
        self.assertRegex(done.stderr.decode(), pattern)
        return done.stderr.decode()

    def generate(self, *words, **how):
        """The replies. Stdout is bytes as the model made them; JSON marks those that are no UTF-8."""
        out = self.good("generate", "--model", MODEL, "--json", *words, **how).stdout
        return [json.loads(line) for line in out.splitlines()]
