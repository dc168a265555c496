#!/usr/bin/env python3
"""The official client of OpenAI's interface against `tessera serve` on two ranks, and a property test of /openapi.json.

Runs under CTest, which says where things are: TESSERA, TINY_GGUF, MPIEXEC, QWEN3 (a folder with a tiny model of that family).
Wants the PyPI packages openai and schemathesis; what is not there is skipped in words.
"""
import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

from support.server import WAIT_S, Server

RANKS = 2
FOLDER = tempfile.TemporaryDirectory(prefix="tessera-openai-")
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris", "days": 2}}\n</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "What it will be like.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}}}]
ASKED = [{"role": "user", "content": "What will it be like in Paris?"}]
ENDS = {"stop_token_ids": [511], "include_stop_str_in_output": True}  # the call is the last that is said
HAS_OPENAI = importlib.util.find_spec("openai") is not None
HAS_SCHEMATHESIS = importlib.util.find_spec("schemathesis") is not None

if HAS_OPENAI:
    import openai


def tiny_gguf():
    path = os.path.join(FOLDER.name, "tiny.gguf")
    if not os.path.exists(path):
        subprocess.run([os.environ["TINY_GGUF"], "9/3", "1", path], check=True, timeout=WAIT_S)
    return path


def calling_model():
    """One whose token 511 is a whole call: a bias makes it say that."""
    path = os.path.join(FOLDER.name, "calling")
    shutil.copytree(os.environ["QWEN3"], path)
    with open(os.path.join(path, "tokenizer.json"), encoding="utf-8") as file:
        tokenizer = json.load(file)
    for token in tokenizer["added_tokens"]:
        if token["id"] == 511:
            token.update(content=CALL, special=False)
    with open(os.path.join(path, "tokenizer.json"), "w", encoding="utf-8") as file:
        json.dump(tokenizer, file)
    return path


@unittest.skipUnless(HAS_OPENAI, "skipped: the PyPI package openai is not installed")
class Client(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(tiny_gguf(), "--served-model-name", "tiny", "--api-key", "secret", ranks=RANKS)
        cls.client = openai.OpenAI(base_url=cls.server.url + "/v1", api_key="secret", max_retries=0)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.server.end()

    def chat(self, **more):
        return self.client.chat.completions.create(model="tiny", messages=ASKED, max_completion_tokens=12, seed=3, **more)

    def test_models(self):
        self.assertEqual([one.id for one in self.client.models.list()], ["tiny"])
        self.assertEqual(self.client.models.retrieve("tiny").owned_by, "tessera")
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("other")

    def test_a_chat_whole_and_streamed(self):
        whole = self.chat(n=2, temperature=0.9, logprobs=True, top_logprobs=3, logit_bias={"5": -100},
                          presence_penalty=0.5, frequency_penalty=0.5, stop=["zz"])
        self.assertEqual(len(whole.choices), 2)
        self.assertEqual(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens)
        one = whole.choices[0].logprobs.content[0]
        self.assertEqual(len(one.top_logprobs), 3)
        self.assertLessEqual(one.logprob, 0)
        texts = ["", ""]
        usage = None
        for chunk in self.chat(n=2, temperature=0.9, logit_bias={"5": -100}, presence_penalty=0.5, frequency_penalty=0.5,
                               stop=["zz"], stream=True, stream_options={"include_usage": True}):
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
            usage = chunk.usage or usage
        self.assertEqual(texts, [choice.message.content for choice in whole.choices])
        self.assertEqual(usage.completion_tokens, whole.usage.completion_tokens)

    def test_the_same_asynchronously(self):
        async def ask():
            async with openai.AsyncOpenAI(base_url=self.server.url + "/v1", api_key="secret", max_retries=0) as client:
                async def one(seed):
                    answer = await client.chat.completions.create(
                        model="tiny", messages=ASKED, max_completion_tokens=12, seed=seed, temperature=1)
                    stream = await client.chat.completions.create(
                        model="tiny", messages=ASKED, max_completion_tokens=12, seed=seed, temperature=1, stream=True)
                    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
                    return answer.choices[0].message.content, text
                return await asyncio.gather(*[one(seed) for seed in range(12)])

        for whole, streamed in asyncio.run(ask()):
            self.assertEqual(whole, streamed)

    def test_completions(self):
        answer = self.client.completions.create(model="tiny", prompt=["Once", "Twice"], max_tokens=5, echo=True, logprobs=2,
                                                extra_body={"ignore_eos": True, "top_k": 5})
        self.assertEqual([choice.text[:4] for choice in answer.choices], ["Once", "Twic"])
        self.assertEqual(answer.choices[0].finish_reason, "length")
        best = self.client.completions.create(model="tiny", prompt="Once", max_tokens=5, n=2, best_of=4, temperature=1, seed=1)
        self.assertEqual(len(best.choices), 2)
        beams = self.client.completions.create(model="tiny", prompt="Once", max_tokens=5, n=2, best_of=4,
                                               extra_body={"use_beam_search": True})
        self.assertEqual(len(beams.choices), 2)
        parts = self.client.completions.create(model="tiny", prompt="Once", max_tokens=5, seed=2, stream=True)
        whole = self.client.completions.create(model="tiny", prompt="Once", max_tokens=5, seed=2)
        self.assertEqual("".join(part.choices[0].text for part in parts), whole.choices[0].text)

    def test_with_raw_response(self):
        raw = self.client.chat.completions.with_raw_response.create(model="tiny", messages=ASKED, max_completion_tokens=3)
        self.assertEqual(raw.status_code, 200)
        self.assertEqual(raw.headers["content-type"], "application/json")
        self.assertEqual(raw.parse().object, "chat.completion")
        with self.client.chat.completions.with_streaming_response.create(
                model="tiny", messages=ASKED, max_completion_tokens=3, stream=True) as raw:
            self.assertEqual(raw.headers["content-type"], "text/event-stream")
            self.assertEqual(list(raw.iter_lines())[-2], "data: [DONE]")

    def test_embeddings(self):
        texts = ["Once upon a time", "there was", "Once upon a time"]
        by_client = self.client.embeddings.create(model="tiny", input=texts)  # as base64, which is its default
        plain = self.client.embeddings.create(model="tiny", input=texts, encoding_format="float")
        for one, other in zip(by_client.data, plain.data):
            self.assertEqual(one.index, other.index)
            self.assertEqual(len(one.embedding), len(other.embedding))
            self.assertTrue(all(abs(a - b) < 1e-9 for a, b in zip(one.embedding, other.embedding)))
            self.assertAlmostEqual(sum(a * a for a in one.embedding), 1, places=5)
        self.assertEqual(by_client.data[0].embedding, by_client.data[2].embedding)
        self.assertNotEqual(by_client.data[0].embedding, by_client.data[1].embedding)
        self.assertEqual(by_client.usage.prompt_tokens, by_client.usage.total_tokens)
        last = self.client.embeddings.create(model="tiny", input="Once", extra_body={"pooling": "last"})
        self.assertEqual(len(last.data[0].embedding), len(plain.data[0].embedding))

    def test_errors_are_the_clients_own(self):
        stranger = openai.OpenAI(base_url=self.server.url + "/v1", api_key="wrong", max_retries=0)
        with self.assertRaises(openai.AuthenticationError) as caught:
            stranger.models.list()
        self.assertEqual(caught.exception.code, "invalid_api_key")
        stranger.close()
        for kind, more in ((openai.NotFoundError, {"model": "other"}), (openai.BadRequestError, {"temperature": -1}),
                           (openai.BadRequestError, {"tools": TOOLS}), (openai.BadRequestError, {"tool_choice": "required"}),
                           (openai.BadRequestError, {"response_format": {"type": "json_object"}})):
            with self.assertRaises(kind) as caught:
                self.client.chat.completions.create(**{"model": "tiny", "messages": ASKED, "max_completion_tokens": 3, **more})
            self.assertEqual(caught.exception.param, next(iter(more)))
            self.assertEqual(caught.exception.type, "invalid_request_error")


@unittest.skipUnless(HAS_OPENAI, "skipped: the PyPI package openai is not installed")
class Tools(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(calling_model(), ranks=RANKS)
        cls.client = openai.OpenAI(base_url=cls.server.url + "/v1", api_key="none", max_retries=0)
        cls.model = cls.client.models.list().data[0].id

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.server.end()

    def chat(self, **more):
        return self.client.chat.completions.create(**{
            "model": self.model, "messages": ASKED, "tools": TOOLS, "temperature": 0, "logit_bias": {"511": 100},
            "max_completion_tokens": 20, "extra_body": ENDS, **more})

    def check(self, call):
        self.assertEqual(call.function.name, "weather")
        self.assertEqual(json.loads(call.function.arguments), {"city": "Paris", "days": 2})
        self.assertRegex(call.id, "^[0-9a-z]{9}$")

    def test_a_call_comes_back_as_one(self):
        choice = self.chat().choices[0]
        self.assertEqual(choice.finish_reason, "tool_calls")
        self.assertIsNone(choice.message.content)
        self.assertEqual(len(choice.message.tool_calls), 1)
        self.check(choice.message.tool_calls[0])

    def test_a_streamed_call_too(self):
        with self.client.chat.completions.stream(
                model=self.model, messages=ASKED, tools=TOOLS, temperature=0, logit_bias={"511": 100},
                max_completion_tokens=20, extra_body=ENDS) as stream:
            stream.until_done()
            choice = stream.get_final_completion().choices[0]
        self.assertEqual(choice.finish_reason, "tool_calls")
        self.check(choice.message.tool_calls[0])

    def test_several_calls_or_just_one(self):
        more = {"extra_body": {}, "max_completion_tokens": 3}
        calls = self.chat(**more).choices[0]
        self.assertEqual((len(calls.message.tool_calls), calls.finish_reason), (3, "length"))
        self.assertEqual(len({call.id for call in calls.message.tool_calls}), 3)
        self.assertEqual(len(self.chat(parallel_tool_calls=False, **more).choices[0].message.tool_calls), 1)

    def test_the_result_goes_back_to_the_model(self):
        call = self.chat().choices[0].message
        said = ASKED + [call.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "Sun."}]
        _, told = self.server.post("/tokenize", {"messages": said, "tools": TOOLS})
        _, text = self.server.post("/detokenize", {"tokens": told["tokens"]})
        self.assertIn('weather(city="Paris", days=2)', text["prompt"])  # as its template writes it
        self.assertIn("<result>Sun.</result>", text["prompt"])
        self.assertTrue(self.chat(messages=said).choices)

    def test_none_tells_the_model_of_no_tool(self):
        choice = self.chat(tool_choice="none").choices[0]
        self.assertEqual(choice.message.content, CALL)
        self.assertIsNone(choice.message.tool_calls)
        _, told = self.server.post("/tokenize", {"messages": ASKED, "tools": TOOLS})
        _, plain = self.server.post("/tokenize", {"messages": ASKED, "tools": TOOLS, "tool_choice": "none"})
        self.assertGreater(told["count"], plain["count"])


@unittest.skipUnless(HAS_SCHEMATHESIS, "skipped: the PyPI package schemathesis is not installed")
class Described(unittest.TestCase):
    def test_what_is_described_is_so(self):
        server = Server(tiny_gguf(), "--served-model-name", "tiny", "--ctx", "128", ranks=RANKS)
        try:
            config = os.path.join(FOLDER.name, "schemathesis.toml")
            with open(config, "w", encoding="utf-8") as file:
                # What is right by its form may be wrong for this model: a token that it has not, a tool that it takes not.
                file.write("[checks]\npositive_data_acceptance.enabled = false\n")
            done = subprocess.run(
                [sys.executable, "-m", "schemathesis.cli", "--config-file", config, "run", server.url + "/openapi.json",
                 "--max-examples", "12", "--seed", "1", "--phases", "examples,coverage,fuzzing", "--request-timeout", "20",
                 "--max-failures", "5", "--no-color"],
                capture_output=True, timeout=WAIT_S, check=False, text=True, cwd=FOLDER.name)
            self.assertEqual(done.returncode, 0, done.stdout[-6000:] + done.stderr[-2000:])
            self.assertEqual(server.ask("GET", "/health")[0], 200)
        finally:
            server.end()


if __name__ == "__main__":
    if not HAS_OPENAI and not HAS_SCHEMATHESIS:
        print("skipped: the PyPI packages openai and schemathesis are not installed (tests/run.sh gets them)")
        sys.exit(77)
    unittest.main(verbosity=2)
