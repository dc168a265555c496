#!/usr/bin/env python3
"""The page of `tessera serve` in a headless Chromium: it chats, shows the engine, and outlives it.

Runs under CTest, which says where things are: TESSERA, TINY_GGUF, MPIEXEC. Standard library only; without a Chromium
it says so and ends with 77. With TESSERA_SHOT=FILE.png and TESSERA_MODEL it takes a picture for the documents instead.
"""
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from support import browser
from support.server import Server, children, free_port

TINY_GGUF = os.environ["TINY_GGUF"]
WAIT_S = 100
RANKS = 2

FOLDER = tempfile.TemporaryDirectory(prefix="tessera-page-")
MODEL = os.path.join(FOLDER.name, "tiny.gguf")


def say(page, text, most):
    page.value("document.getElementById('most').value = %d;"
               "document.getElementById('text').value = %s;"
               "document.getElementById('ask').requestSubmit()" % (most, json.dumps(text)))


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        subprocess.run([TINY_GGUF, "yarn", "1", MODEL], check=True, timeout=WAIT_S)
        cls.port = free_port()
        cls.words = ["--served-model-name", "tiny", "--kv-memory", "1M", "--kv-host", "1M", "--drain-timeout", "0"]
        cls.server = Server(MODEL, *cls.words, ranks=RANKS, port=cls.port)
        cls.page = browser.Browser(browser.find())

    @classmethod
    def tearDownClass(cls):
        cls.page.close()
        cls.server.end()
        FOLDER.cleanup()

    def open(self, port=None):
        self.page.screen(1280, 800)
        self.page.open("http://127.0.0.1:%d/" % (port or self.port))
        self.page.wait("document.getElementById('state')?.dataset.state === 'up'")
        # A random model may end its answer at any token: ours is not to.
        self.page.value("(() => { const plain = window.fetch; window.fetch = (path, o) => plain(path, o.body ?"
                        "{...o, body: JSON.stringify({...JSON.parse(o.body), ignore_eos: true, seed: 1})} : o); })()")

    def keep_busy(self):
        """More than is done in seconds, so that ours takes as long; it may fail."""
        def ask():
            try:
                self.server.ask("POST", "/v1/completions", {"prompt": [[5 + i] * 40 for i in range(24)], "max_tokens": 4000,
                                                            "ignore_eos": True})
            except OSError:
                pass
        other = threading.Thread(target=ask)
        other.start()
        return other

    def test_1_it_streams_an_answer_and_shows_the_engine(self):
        self.open()
        self.page.wait("document.getElementById('model').textContent === 'tiny'")
        self.assertEqual(self.page.value("document.querySelectorAll('.rank').length"), RANKS)
        self.assertEqual(self.page.value("document.querySelector('.rank .heads').getAttribute('aria-label')"), "heads 0–1 of 4")
        # Another one's answer, long enough to be seen in the map together with ours.
        other = self.keep_busy()
        say(self.page, "Hello <b>there</b>", 400)
        self.page.wait("document.querySelector('.answer.open p')?.textContent.length > 0")
        self.page.wait("Array.from(document.querySelectorAll('.blocks')).some((one) => one.dataset.sequences > 0)")
        self.assertGreater(self.page.value("Number(document.querySelector('.blocks').dataset.blocks)"), 2)
        self.assertEqual(self.page.value("document.querySelector('.mine p').textContent"), "Hello <b>there</b>")
        self.page.wait("document.querySelector('.answer:not(.open) .note')?.textContent.includes('token')")
        self.page.wait("Number(document.getElementById('running').textContent) >= 0")
        self.page.wait("document.getElementById('first').textContent.includes('s')")
        other.join()
        # What was drawn is not one colour: some tile is of a sequence, others are empty.
        self.assertGreater(self.page.value(
            "(() => { const c = document.querySelector('.blocks'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "const seen = new Set(); for (let i = 0; i < d.length; i += 4) if (d[i + 3] === 255) seen.add(`${d[i]},${d[i+1]},${d[i+2]}`);"
            "return seen.size; })()"), 1)

    def test_2_it_fits_a_phone_and_the_dark(self):
        self.open()
        grounds = []
        for dark in (False, True):
            for width in (360, 820, 1280):
                self.page.screen(width, 740, dark)
                for view in ("chat", "engine"):
                    self.page.value("document.querySelector('[data-show=%s]').click()" % view)
                    self.assertLessEqual(self.page.value("document.documentElement.scrollWidth"), width)
                    shown = self.page.value("['chat', 'engine'].filter((one) => document.querySelector('.' + one).offsetWidth > 0)")
                    self.assertEqual(shown, [view] if width <= 820 else ["chat", "engine"])
            grounds.append(self.page.value("getComputedStyle(document.body).backgroundColor"))
        self.assertNotEqual(*grounds)

    def test_3_an_answer_can_be_stopped_and_a_conversation_begun_anew(self):
        self.open()
        other = self.keep_busy()
        say(self.page, "Go on for ever", 100000)
        self.page.wait("document.querySelector('.answer.open p')?.textContent.length > 0")
        self.page.value("document.getElementById('ask').requestSubmit()")
        self.page.wait("document.querySelector('.answer:not(.open) .note')?.textContent === 'stopped'")
        other.join()
        self.page.wait("document.getElementById('running').textContent === '0'")
        self.page.value("document.getElementById('fresh').click()")
        self.assertEqual(self.page.value("document.querySelectorAll('#messages li').length"), 0)

    def test_4_it_outlives_the_engine(self):
        self.open()
        self.assertEqual(self.page.faults, [])
        other = self.keep_busy()
        say(self.page, "Go on for ever", 100000)
        self.page.wait("document.querySelector('.answer.open p')?.textContent.length > 0")
        type(self).server.end()
        other.join()
        self.page.wait("document.getElementById('state').dataset.state === 'down'")
        self.page.wait("document.querySelector('.answer .note.bad button') !== null")
        type(self).server = Server(MODEL, *self.words, ranks=RANKS, port=self.port)
        self.page.wait("document.getElementById('state').dataset.state === 'up'")
        self.page.value("document.getElementById('most').value = 5; document.querySelector('.note.bad button').click()")
        self.page.wait("document.querySelector('.answer:not(.open) .note')?.textContent.includes('5 tokens')")

    def test_5_an_answer_goes_on_when_a_rank_is_killed(self):
        server = Server(MODEL, "--tensor-parallel-size", str(RANKS), "--launcher", "mpirun --oversubscribe --bind-to none")
        try:
            self.open(server.port)
            say(self.page, "Go on for long", 1900)
            self.page.wait("document.querySelector('.answer.open p')?.textContent.length > 20")
            ranks = [pid for launcher in children(server.job.pid) for pid in children(launcher)]
            self.assertEqual(len(ranks), RANKS)
            os.kill(ranks[-1], signal.SIGKILL)
            self.page.wait("document.getElementById('state').textContent === 'the engine is being restarted'")
            self.page.wait("document.getElementById('state').dataset.state === 'up'")
            self.page.wait("document.querySelector('.answer:not(.open) .note')?.textContent.startsWith('1900 tokens')")
            self.page.wait("Number(document.querySelector('.blocks')?.dataset.blocks) > 0")
        finally:
            server.end()

    def test_6_a_key_is_asked_for(self):
        server = Server(MODEL, "--api-key", "secret")
        try:
            self.page.open("http://127.0.0.1:%d/" % server.port)
            self.page.wait("document.getElementById('key-form')?.hidden === false")
            self.page.value("document.getElementById('key').value = 'secret';"
                            "document.getElementById('key-form').requestSubmit()")
            self.page.wait("document.getElementById('state').dataset.state === 'up'")
            self.assertTrue(self.page.value("document.getElementById('key-form').hidden"))
        finally:
            server.end()


def shoot(path):
    """A picture for the documents, with the model that TESSERA_MODEL names."""
    server = Server(os.environ["TESSERA_MODEL"], "--ctx", "2048", "--kv-memory", "12M", "--kv-host", "16M", ranks=RANKS)
    page = browser.Browser(browser.find())
    page.screen(1280, 860)
    page.open("http://127.0.0.1:%d/" % server.port)
    page.wait("document.getElementById('state')?.dataset.state === 'up'")
    others = [threading.Thread(target=server.post, args=("/v1/chat/completions", {
        "messages": [{"role": "user", "content": "A long story of the sea, with %d ships. " % (3 * i + 2) * (1 + i % 4)}],
        "max_tokens": 120 + 30 * i, "seed": i, "ignore_eos": True})) for i in range(9)]
    for other in others:
        other.start()
    say(page, "What is a mosaic made of?", 140)
    time.sleep(14)
    page.shoot(path)
    for other in others:
        other.join()
    page.close()
    server.end()


if __name__ == "__main__":
    if browser.find() is None:
        print("skipped: there is no chromium")
        sys.exit(77)
    if "TESSERA_SHOT" in os.environ:
        shoot(os.environ["TESSERA_SHOT"])
    else:
        unittest.main()
