#!/usr/bin/env python3
"""The commands that look at text and models and generate nothing: tokenize, detokenize, perplexity, inspect, plan.

Runs under CTest, which says where things are: TESSERA, TINY_GGUF, MPIEXEC. Standard library only.
"""
import array
import json
import math
import os
import re
import struct
import unittest

from support.program import FOLDER, MODEL, MODELS, Case, run, setUpModule, tearDownModule, write


class Tokens(Case):
    def test_text_comes_back_byte_for_byte(self):
        for text in (b"", b"hello", "Grüße, 世界 🌍\n".encode(), b" a  b\n\n", b"\xff\xfe bytes", b"x\0y"):
            ids = self.good("tokenize", "--model", MODEL, stdin=text).stdout
            self.assertEqual(self.good("detokenize", "--model", MODEL, stdin=ids).stdout, text)
            form = self.good("tokenize", "--model", MODEL, "--json", stdin=text).stdout
            self.assertEqual(json.loads(form)["ids"], [int(i) for i in ids.split()])
            self.assertEqual(self.good("detokenize", "--model", MODEL, stdin=form).stdout, text)

    def test_special_tokens_are_text_unless_asked_for(self):
        text = b"<|im_end|>"
        plain = json.loads(self.good("tokenize", "--model", MODEL, "--json", stdin=text).stdout)["ids"]
        special = json.loads(self.good("tokenize", "--model", MODEL, "--json", "--special", stdin=text).stdout)["ids"]
        self.assertGreater(len(plain), 1)
        self.assertEqual(special, [2])
        self.assertEqual(self.good("detokenize", "--model", MODEL, stdin=b"2").stdout, b"")
        self.assertEqual(self.good("detokenize", "--model", MODEL, "--special", stdin=b"2").stdout, text)

    def test_ids_may_be_separated_by_anything_usual(self):
        for ids in (b"100,101,102", b"100 101\n102\n", b"[100, 101, 102]", b'{"ids": [100,101,102], "more": 1}'):
            text = json.loads(self.good("detokenize", "--model", MODEL, "--json", stdin=ids).stdout)["text"]
            self.assertEqual(text, "abc")

    def test_bytes_that_are_no_utf8_are_marked_in_json(self):
        done = self.good("detokenize", "--model", MODEL, "--json", stdin=b"100 258 101")
        self.assertEqual(json.loads(done.stdout.decode("utf-8"))["text"], "a\N{REPLACEMENT CHARACTER}b")

    def test_what_are_no_ids_is_refused(self):
        for ids in (b"x", b"1 -2", b"99999999", b"[1, 2", b"{}", b'{"ids": 5}', b'["1"]', b"[-1]", b"[1e99]", b"1\0 2"):
            with self.subTest(ids=ids):
                self.says(1, r"^tessera detokenize: .+\n$", "detokenize", "--model", MODEL, stdin=ids)


class Perplexity(Case):
    def test_numbers_fit_together(self):
        text = b"The tiny model has never seen this text."
        score = json.loads(self.good("perplexity", "--model", MODEL, "--json", write("t.txt", text)).stdout)
        self.assertEqual(list(score), ["tokens", "mean_nll", "perplexity", "logprob", "argmax"])
        self.assertEqual(len(score["logprob"]), score["tokens"] - 1)
        self.assertEqual(len(score["argmax"]), score["tokens"])
        self.assertTrue(all(p < 0 for p in score["logprob"]))
        self.assertAlmostEqual(score["mean_nll"], -sum(score["logprob"]) / len(score["logprob"]), 9)
        self.assertAlmostEqual(score["perplexity"] / math.exp(score["mean_nll"]), 1, 9)
        ids = self.good("tokenize", "--model", MODEL, stdin=text).stdout.decode().replace(" ", ",").strip()
        self.assertEqual(json.loads(self.good("perplexity", "--model", MODEL, "--json", "--ids", ids).stdout), score)
        self.assertEqual(json.loads(self.good("perplexity", "--model", MODEL, "--json", "-", stdin=text).stdout), score)
        said = self.good("perplexity", "--model", MODEL, "--ids", ids).stdout.decode()
        self.assertIn("%.6f" % score["mean_nll"], said)
        # The likeliest token after a prompt is what greedy generation takes.
        greedy, = self.generate("--prompt-ids", ids, "--max-tokens", "1")
        self.assertEqual(greedy["ids"], score["argmax"][-1:])

    def test_one_token_has_no_score(self):
        self.says(1, "two", "perplexity", "--model", MODEL, "--ids", "5")


class Inspect(Case):
    def test_the_shape_is_told(self):
        done = json.loads(self.good("inspect", MODEL, "--json", "--metadata").stdout)
        self.assertEqual((done["shape"]["heads"], done["shape"]["kv_heads"]), (9, 3))
        self.assertEqual(done["file_bytes"], os.path.getsize(MODEL))
        self.assertEqual(sum(kind["tensors"] for kind in done["tensors"]), done["n_tensors"])
        self.assertIn("general.architecture", [entry["key"] for entry in done["metadata"]])
        page = self.good("inspect", MODEL, "--metadata").stdout.decode()
        for word in ("9 of", "3 key-value heads", "tensors by type", "tokenizer", "chat template",
                     "general.architecture"):
            self.assertIn(word, page)

    def test_the_ranks_own_everything_once(self):
        for n in (1, 2, 3, 4, 9):
            done = json.loads(self.good("inspect", MODEL, "--json", "--ranks", str(n)).stdout)
            self.assertEqual(len(done["ranks"]), n)
            for part, total in (("heads", 9), ("ff", done["shape"]["ff_dim"]),
                                ("vocabulary", done["shape"]["vocabulary"])):
                owned = [i for rank in done["ranks"] for i in range(*rank[part])]
                self.assertEqual(owned, list(range(total)), (n, part))
        page = self.good("inspect", MODEL, "--ranks", "2").stdout.decode()
        rows = re.findall(r"(?m)^ +\d  (\|[#.|]+\|)$", page)
        self.assertEqual(len(rows), 2)
        self.assertEqual([row.count("#") + row.count(".") for row in rows], [9, 9])
        self.assertEqual(sum(row.count("#") for row in rows), 9)

    def test_rounding_is_told_a_tensor_as_computed_here(self):
        folder = os.path.join(MODELS, "qwen2")
        name = "model.layers.1.self_attn.o_proj.weight"
        with open(os.path.join(folder, "model.safetensors"), "rb") as file:
            n, = struct.unpack("<Q", file.read(8))
            entry = json.loads(file.read(n))[name]
            file.seek(8 + n + entry["data_offsets"][0])
            halves = array.array("H", file.read(entry["data_offsets"][1] - entry["data_offsets"][0]))
        values = [struct.unpack("<f", struct.pack("<I", h << 16))[0] for h in halves]
        misses = []
        for at in range(0, len(values), 32):
            run = values[at:at + 32]
            d, = struct.unpack("<e", struct.pack("<e", max(map(abs, run)) / 127))
            misses += [abs(d * round(v / d) - v) for v in run]
        relative = math.sqrt(sum(m * m for m in misses) / sum(v * v for v in values))
        done = json.loads(self.good("inspect", folder, "--quantize", "int8", "--json").stdout)["rounding"]
        told = next(t for t in done["tensors"] if t["name"] == name)
        self.assertEqual(told["elements"], len(values))
        self.assertAlmostEqual(told["relative"], relative, places=6)
        self.assertAlmostEqual(told["largest"], max(misses), places=6)
        self.assertEqual(done["total"]["elements"], sum(t["elements"] for t in done["tensors"]))
        self.assertEqual(done["total"]["largest"], max(t["largest"] for t in done["tensors"]))
        four = json.loads(self.good("inspect", folder, "--quantize", "int4", "--json").stdout)["rounding"]["total"]
        self.assertTrue(0.05 < four["relative"] < 0.08, four)
        self.assertIn(b"all of them", self.good("inspect", folder, "--quantize", "fp8").stdout)
        self.assertIn(b"none", self.good("inspect", os.path.join(MODELS, "q_awq"), "--quantize", "int8").stdout)
        self.says(2, "which model", "inspect", "--quantize", "int8")

    def test_the_devices_are_told_without_a_model(self):
        self.assertRegex(self.good("inspect", "--devices").stdout, rb"devices\n  CPU, .* GB free")
        devices = json.loads(self.good("inspect", "--devices", "--json").stdout)["devices"]
        self.assertRegex(devices[0]["name"], "^CPU, ")
        self.assertGreater(devices[0]["free_bytes"], 1 << 20)

    def test_the_environment_is_told_without_a_model(self):
        self.assertIn(b"TSR_LOG", self.good("inspect", "--env").stdout)
        names = [e["name"] for e in json.loads(self.good("inspect", "--env", "--json").stdout)["environment"]]
        self.assertIn("TSR_TIMEOUT", names)


class Plan(Case):
    def test_the_table_has_1_to_16_ranks_and_an_advice(self):
        page = self.good("plan", "--shape", "llama-3-70b", "--weights", "q4", "--gpu", "4090", "--ctx", "4096").stdout.decode()
        self.assertEqual([int(n) for n in re.findall(r"(?m)^ +(\d+) +[\d.]+ [KMGT]iB", page)], list(range(1, 17)))
        self.assertIn("does not fit", page)
        self.assertRegex(page, r"(?m)^2 ranks hold \d+ sequences of 4096 tokens, or one of \d+; 3 ranks hold \d+\.$")
        self.assertRegex(page, r"\[W+x*K+\.*\]")
        self.assertNotIn("in flight", page)

    def test_json_says_the_same_and_fit_takes_the_fewest_ranks(self):
        words = ("plan", "--shape", "llama-3-70b", "--weights", "q4", "--gpu", "4090", "--ctx", "4096", "--json")
        done = json.loads(self.good(*words).stdout)
        fit = json.loads(self.good(*words, "--fit", "--host-memory", "64G").stdout)
        two = json.loads(self.good(*words, "--ranks", "2").stdout)
        self.assertEqual([plan["ranks"] for plan in done["plans"]], list(range(1, 17)))
        self.assertEqual([plan["fits"] for plan in done["plans"]], [False] + 15 * [True])
        self.assertEqual(two["plans"], done["plans"][1:2])
        self.assertEqual(fit["plans"][0]["ranks"], 2)
        self.assertEqual(fit["plans"][0]["sequences"], two["plans"][0]["sequences"])
        self.assertGreater(fit["plans"][0]["in_flight"], two["plans"][0]["in_flight"])

    def test_a_model_is_planned_as_inspect_describes_it(self):
        for n in (1, 2, 4):
            plan = json.loads(self.good("plan", "--model", MODEL, "--ranks", str(n), "--json").stdout)
            told = json.loads(self.good("inspect", MODEL, "--ranks", str(n), "--json").stdout)
            self.assertEqual([rank["weight_bytes"] for rank in plan["plans"][0]["rank"]],
                             [rank["weight_bytes"] for rank in told["ranks"]])
        self.assertIn(b"tessera generate --model", self.good("plan", "--model", MODEL).stdout)

    def test_mistakes_are_told(self):
        for status, pattern, words in ((2, "either --model M or --shape", []),
                                       (2, "do not go together", ["--shape", "llama-3-8b", "--ranks", "2", "--fit"]),
                                       (2, "--weights is about", ["--model", MODEL, "--weights", "q4"]),
                                       (1, "known are h200, h100", ["--shape", "llama-3-8b", "--gpu", "voodoo2"]),
                                       (1, "known are llama-2-7b", ["--shape", "gpt-9"])):
            self.says(status, pattern, "plan", *words)


class HostileModels(Case):
    def test_files_that_are_no_model_are_refused_in_one_sentence(self):
        with open(MODEL, "rb") as file:
            whole = file.read()
        bad = [write("empty.gguf", b""), write("text.gguf", b"This is no model.\n" * 100),
               write("zeros.gguf", bytes(100000)), write("magic.gguf", b"GGUF"), FOLDER.name,
               os.path.join(FOLDER.name, "missing.gguf")]
        bad += [write("cut%d.gguf" % n, whole[:n]) for n in (12, 100, 5000, len(whole) // 2, len(whole) - 1)]
        for path in bad:
            for words in (["inspect", path], ["tokenize", "--model", path],
                          ["generate", "--model", path, "--prompt", "x"]):
                with self.subTest(words=words):
                    said = self.says(1, r"^tessera \w+: .+\n$", *words)
                    self.assertEqual(said.count("\n"), 1, said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
