#!/usr/bin/env python3
"""The program as a person or a script uses it: flags, exit statuses, JSON, signals, several ranks.

Runs under CTest, which says where things are: TESSERA, TINY_GGUF, MPIEXEC. Standard library only.
"""
import json
import math
import os
import re
import signal
import subprocess
import time
import unittest

from support.program import FOLDER, MODEL, MODELS, MPIRUN, TESSERA, WAIT_S, Case, run, setUpModule, tearDownModule, write

COMMANDS = ("generate", "chat", "tokenize", "detokenize", "perplexity", "bench", "inspect", "batch", "serve", "engine", "plan")


class HelpAndMistakes(Case):
    def test_help_and_version_go_to_stdout_and_succeed(self):
        for words in (["--help"], ["-h"], ["help"], ["--version"]):
            done = self.good(*words)
            self.assertEqual(done.stderr, b"")
            self.assertIn(b"tessera", done.stdout)
        self.assertRegex(self.good("--version").stdout, rb"^tessera \d+\.\d+\.\d+\n$")
        for command in COMMANDS:
            page = self.good(command, "--help").stdout
            self.assertTrue(page.startswith(b"usage: tessera " + command.encode()))
            self.assertIn(b"Examples", page)
            self.assertEqual(self.good("help", command).stdout, page)
            self.assertIn(command.encode(), self.good("--help").stdout)

    def test_every_promised_flag_is_in_the_help(self):
        page = self.good("generate", "--help").stdout.decode()
        for flag in ("model prompt prompt-file prompt-ids chat system max-tokens temperature top-k top-p min-p seed ctx "
                     "dtype quantize kv-dtype kv-memory block-tokens threads activations ignore-eos json quiet "
                     "max-batch-tokens "
                     "max-sequences typical-p repetition-penalty presence-penalty frequency-penalty logit-bias min-tokens "
                     "stop stop-ids include-stop logprobs echo n best-of beams num-return length-penalty early-stopping").split():
            self.assertRegex(page, r"(?m)^  --%s\b" % flag)

    def test_rounded_weights_say_the_same_on_two_ranks(self):
        folder = os.path.join(MODELS, "llama3")
        said = set()
        for kind in ("int8", "int4", "fp8"):
            line = ["generate", "--model", folder, "--prompt-ids", "5,9,77", "--max-tokens", "24", "--quantize", kind]
            text = self.good(*line).stdout
            self.assertEqual(self.good(*line, ranks=2).stdout, text)
            said.add(text)
        self.assertGreater(len(said), 1)
        self.assertIn(b"both f16 and int8", run("generate", "--model", folder, "--prompt-ids", "5", "--dtype", "f16",
                                                "--quantize", "int8").stderr)

    def test_mistakes_in_the_line_end_with_2(self):
        generate = ["generate", "--model", MODEL]
        for pattern, words in (
                ("--help", []),
                ("no command 'generat'; did you mean generate", ["generat"]),
                ("no command", ["frobnicate"]),
                ("did you mean --max-tokens", generate + ["--max-token", "3", "--prompt", "x"]),
                ("--model M is missing", ["generate", "--prompt", "x"]),
                ("--model M is missing", ["tokenize"]),
                ("--model M is missing", ["bench"]),
                ("which prompt", generate),
                ("do not go together", generate + ["--prompt", "x", "--prompt-ids", "1"]),
                ("--system needs --chat", generate + ["--prompt", "x", "--system", "y"]),
                ("--prompt needs a value", generate + ["--prompt"]),
                ("whole number", generate + ["--prompt", "x", "--max-tokens", "many"]),
                ("from 1 to", generate + ["--prompt", "x", "--max-tokens", "0"]),
                ("number", generate + ["--prompt", "x", "--temperature", "nan"]),
                ("from 0 to 1", generate + ["--prompt", "x", "--top-p", "1.5"]),
                ("one of f32", generate + ["--prompt", "x", "--kv-dtype", "int3"]),
                ("one of int8", generate + ["--prompt", "x", "--quantize", "int3"]),
                ("bytes", generate + ["--prompt", "x", "--kv-memory", "lots"]),
                ("token ids", generate + ["--prompt-ids", "1,two"]),
                ("from 0.001 to", generate + ["--prompt", "x", "--repetition-penalty", "0"]),
                ("from 0.001 to", generate + ["--prompt", "x", "--repetition-penalty", "-1"]),
                ("number", generate + ["--prompt", "x", "--presence-penalty", "nan"]),
                ("from 0 to 1", generate + ["--prompt", "x", "--typical-p", "1.5"]),
                ("pairs such as", generate + ["--prompt", "x", "--logit-bias", "5"]),
                ("number, not 'nan'", generate + ["--prompt", "x", "--logit-bias", "5:1,6:nan"]),
                ("--logit-bias", generate + ["--prompt", "x", "--logit-bias", "-5:1"]),
                ("--logit-bias", generate + ["--prompt", "x", "--logit-bias", "5:1,"]),
                ("token ids", generate + ["--prompt", "x", "--stop-ids", "1;2"]),
                ("from 0 to 1024", generate + ["--prompt", "x", "--json", "--logprobs", "2000"]),
                ("--logprobs needs --json", generate + ["--prompt", "x", "--logprobs", "2"]),
                ("need --beams", generate + ["--prompt", "x", "--num-return", "2"]),
                ("need --beams", generate + ["--prompt", "x", "--early-stopping", "yes"]),
                ("one of yes", generate + ["--prompt", "x", "--beams", "2", "--early-stopping", "maybe"]),
                ("at most --beams", generate + ["--prompt", "x", "--beams", "2", "--num-return", "3"]),
                ("not --n", generate + ["--prompt", "x", "--beams", "2", "--n", "2"]),
                ("not sampled", generate + ["--prompt", "x", "--beams", "2", "--temperature", "1"]),
                ("at least --n", generate + ["--prompt", "x", "--n", "3", "--best-of", "2"]),
                ("from 1 to", generate + ["--prompt", "x", "--n", "0"]),
                ("from -10 to 10", generate + ["--prompt", "x", "--beams", "2", "--length-penalty", "11"]),
                ("which text", ["perplexity", "--model", MODEL]),
                ("one word too many", ["inspect", MODEL, MODEL]),
                ("takes no value", ["inspect", MODEL, "--json=yes"]),
                ("which model", ["inspect"])):
            with self.subTest(words=words):
                self.says(2, pattern, *words)


class Generate(Case):
    def test_what_begins_alike_is_computed_once_and_the_text_is_the_same(self):
        # Two bytes make a token at most, so 400 of them fill several blocks of 16 tokens.
        start = "".join(chr(ord("a") + i * i % 23) for i in range(400))
        words = ["--block-tokens", "16", "--max-sequences", "1", "--max-tokens", "9", "--ignore-eos"]
        prompts = [start, start + "xyz", start, start[:333] + "Q", "Q" + start]
        for text in prompts:
            words += ["--prompt", text]
        for ranks in (0, 2, 3):
            known = self.generate(*words, ranks=ranks)
            plain = self.generate(*words, "--no-prefix-cache", ranks=ranks)
            self.assertEqual([r["ids"] for r in known], [r["ids"] for r in plain])
            self.assertEqual([r["cached_tokens"] for r in plain], [0] * 5)
            first = len(known[0]["prompt_ids"])
            cached = [r["cached_tokens"] for r in known]
            self.assertEqual(cached[0], 0)
            self.assertIn(cached[1], range(first - 2, first + 1))
            self.assertEqual(cached[2], first - 1)
            self.assertGreater(cached[3], first // 2)
            self.assertLess(cached[4], 16)

    def test_json_is_one_object_a_prompt(self):
        reply, = self.generate("--prompt", "ab", "--max-tokens", "5", "--ignore-eos")
        self.assertEqual(list(reply), ["prompt_ids", "cached_tokens", "ids", "text", "finish_reason", "timings", "choices"])
        self.assertEqual(reply["finish_reason"], "length")
        self.assertEqual(len(reply["ids"]), 5)
        self.assertEqual(sorted(reply["timings"]), ["generation_tok_per_s", "itl_max_ms", "itl_ms", "load_ms",
                                                    "prompt_tok_per_s", "ttft_ms"])
        for name, number in reply["timings"].items():
            self.assertGreater(number, 0, name)
        ids = json.loads(self.good("tokenize", "--model", MODEL, "--json", stdin=b"ab").stdout)["ids"]
        self.assertEqual(reply["prompt_ids"], ids)

    def test_how_it_is_planned_changes_no_token(self):
        words = ("--prompt", "ab", "--prompt", "abc" * 30, "--prompt", "b", "--max-tokens", "9", "--ignore-eos")
        ids = [reply["ids"] for reply in self.generate(*words)]
        for options in (["--target-itl", "0.001"], ["--priority", "-7"], ["--max-queue", "3"], ["--deadline", "999"]):
            with self.subTest(options=options):
                self.assertEqual([reply["ids"] for reply in self.generate(*words, *options)], ids)

    def test_a_full_queue_refuses_in_words(self):
        self.says(1, "prompt 3: 2 requests wait already", "generate", "--model", MODEL, "--prompt", "a", "--prompt", "b",
                  "--prompt", "c", "--max-queue", "2")

    def test_a_deadline_ends_an_answer(self):
        reply, = self.generate("--prompt", "ab", "--max-tokens", "5", "--ignore-eos", "--deadline", "0.000001")
        self.assertEqual(reply["finish_reason"], "deadline")
        self.assertLess(len(reply["ids"]), 2)  # the first step began before it was over

    def test_stdout_is_the_text_and_stderr_one_line(self):
        words = ("--prompt", "ab", "--max-tokens", "12", "--ignore-eos")
        done = self.good("generate", "--model", MODEL, *words)
        text = self.generate(*words)[0]["text"]
        self.assertEqual(done.stdout.decode(errors="replace").rstrip("\n"), text.rstrip("\n"))
        self.assertEqual(done.stderr.count(b"\n"), 1, done.stderr)
        self.assertRegex(done.stderr, rb"loaded in .* first token after .* prompt .* generated .* 1 rank x")
        self.assertEqual(self.good("generate", "--model", MODEL, "--quiet", *words).stderr, b"")

    def test_ids_and_text_prompts_are_the_same_prompt(self):
        by_text, = self.generate("--prompt", "hello", "--max-tokens", "6")
        by_ids, = self.generate("--prompt-ids", ",".join(map(str, by_text["prompt_ids"])), "--max-tokens", "6")
        by_file, = self.generate("--prompt-file", "-", "--max-tokens", "6", stdin=b"hello")
        self.assertEqual(by_text["ids"], by_ids["ids"])
        self.assertEqual(by_text["ids"], by_file["ids"])

    def test_several_files_are_answered_in_their_order_as_if_alone(self):
        files = [write("p%d.txt" % i, text) for i, text in enumerate((b"one", b"the second", b"3"))]
        words = [word for file in files for word in ("--prompt-file", file)] + ["--max-tokens", "7"]
        replies = self.generate(*words)
        alone = [self.generate("--prompt-file", file, "--max-tokens", "7")[0] for file in files]
        self.assertEqual([r["ids"] for r in replies], [r["ids"] for r in alone])
        text = self.good("generate", "--model", MODEL, *words).stdout.decode(errors="replace")
        at = [text.index("==> %s <==" % file) for file in files]
        self.assertEqual(at, sorted(at))
        for file, reply in zip(files, replies):
            self.assertIn("==> %s <==\n%s" % (file, reply["text"]), text)

    def test_a_seed_decides_what_chance_chooses(self):
        def ids(seed):
            return self.generate("--prompt", "x", "--temperature", "1.5", "--seed", seed, "--max-tokens", "24",
                                 "--ignore-eos")[0]["ids"]
        self.assertEqual(ids("7"), ids("7"))
        self.assertNotEqual(ids("7"), ids("8"))

    def test_engine_flags_are_taken(self):
        plain, = self.generate("--prompt", "hello", "--max-tokens", "6", "--activations", "f32")
        same, = self.generate("--prompt", "hello", "--max-tokens=6", "--activations=f32", "--ctx=128", "--threads=1",
                              "--kv-memory=8M", "--block-tokens=16", "--max-batch-tokens=4", "--max-sequences=1")
        self.assertEqual(plain["ids"], same["ids"])

    def test_what_cannot_be_answered_ends_with_1_and_one_sentence(self):
        generate = ["generate", "--model", MODEL]
        folder = FOLDER.name
        for pattern, words in (
                ("nowhere.txt", generate + ["--prompt-file", "nowhere.txt"]),
                ("directory", generate + ["--prompt-file", folder]),
                ("empty", generate + ["--prompt", ""]),
                ("zero byte", generate + ["--chat", "--prompt-file", write("zero.txt", b"a\0b")]),
                ("99999999", generate + ["--prompt-ids", "99999999"]),
                ("16", generate + ["--ctx", "16", "--prompt-ids", ",".join(["5"] * 40)])):
            with self.subTest(words=words):
                said = self.says(1, pattern, *words)
                self.assertEqual(said.count("\n"), 1, said)

    def test_output_that_cannot_be_written_is_a_failure_and_a_closed_pipe_is_none(self):
        words = [TESSERA, "generate", "--model", MODEL, "--prompt", "x", "--ignore-eos", "--ctx", "256"]
        with open("/dev/full", "wb") as full:
            done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, timeout=WAIT_S, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"No space left", done.stderr)
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            running.stdout.close()
            said = running.stderr.read()
            self.assertEqual(running.wait(WAIT_S), 0, said)


class Decoding(Case):
    """How tokens are chosen and where an answer ends."""
    WORDS = ("--prompt", "hello there", "--max-tokens", "12", "--ignore-eos")

    def choice(self, *words, **how):
        return self.generate(*self.WORDS, *words, **how)[0]["choices"][0]

    def test_a_choice_repeats_the_reply_and_says_how_likely_it_was(self):
        reply, = self.generate(*self.WORDS)
        choice, = reply["choices"]
        self.assertEqual(list(choice), ["index", "ids", "text", "finish_reason", "logprob"])
        self.assertEqual(choice["index"], 0)
        for key in ("ids", "text", "finish_reason"):
            self.assertEqual(choice[key], reply[key])
        self.assertLess(choice["logprob"], 0)

    def test_likely_tokens_keep_the_space_before_them(self):
        done = self.good("generate", "--model", os.path.join(MODELS, "llama2"), "--prompt", "a b", "--max-tokens", "20",
                         "--json", "--logprobs", "5", "--ignore-eos")
        places = json.loads(done.stdout)["choices"][0]["logprobs"]
        texts = [token["text"] for place in places for token in place["top"]]
        self.assertTrue(any(text.startswith(" ") for text in texts), texts)

    def test_logprobs_are_those_of_the_tokens(self):
        choice = self.choice("--logprobs", "3", "--temperature", "0.7", "--seed", "3", "--frequency-penalty", "0.5")
        self.assertEqual([place["id"] for place in choice["logprobs"]], choice["ids"])
        self.assertAlmostEqual(sum(place["logprob"] for place in choice["logprobs"]), choice["logprob"], places=9)
        for place in choice["logprobs"]:
            self.assertEqual(list(place), ["id", "text", "logprob", "top"])
            best = [token["logprob"] for token in place["top"]]
            self.assertEqual(len(best), 3)
            self.assertEqual(best, sorted(best, reverse=True))
            self.assertLessEqual(place["logprob"], best[0])
            self.assertLessEqual(sum(map(math.exp, best)), 1.0001)
        none = self.choice("--logprobs", "0")
        self.assertEqual({len(place["top"]) for place in none["logprobs"]}, {0})

    def test_echo_scores_the_prompt_as_perplexity_does(self):
        reply, = self.generate(*self.WORDS, "--echo", "--logprobs", "2")
        scored = reply["prompt_logprobs"]
        self.assertEqual([place["id"] for place in scored], reply["prompt_ids"])
        self.assertIsNone(scored[0]["logprob"])
        self.assertEqual({len(place["top"]) for place in scored[1:]}, {2})
        out = self.good("perplexity", "--model", MODEL, "--json", "--ids", ",".join(map(str, reply["prompt_ids"]))).stdout
        mean = -sum(place["logprob"] for place in scored[1:]) / (len(scored) - 1)
        self.assertAlmostEqual(math.exp(mean), json.loads(out)["perplexity"], delta=1e-3 * math.exp(mean))
        plain = self.good("generate", "--model", MODEL, *self.WORDS).stdout
        self.assertEqual(self.good("generate", "--model", MODEL, *self.WORDS, "--echo").stdout, b"hello there" + plain)

    def test_text_ends_before_a_stop_or_with_it(self):
        words = ["generate", "--model", MODEL, "--quiet", *self.WORDS]
        whole = self.good(*words).stdout.rstrip(b"\n")
        at, stop = next((i, whole[i:i + 2]) for i in range(3, len(whole))
                        if 0 not in whole[i:i + 2] and whole.find(whole[i:i + 2]) == i and len(whole[i:i + 2]) == 2)
        stopped = self.good(*words, "--stop", "never", "--stop", stop).stdout
        self.assertEqual(stopped.rstrip(b"\n"), whole[:at].rstrip(b"\n"))
        included = self.good(*words, "--stop", stop, "--include-stop").stdout
        self.assertEqual(included.rstrip(b"\n"), whole[:at + 2].rstrip(b"\n"))
        self.assertEqual(self.choice("--stop", stop)["finish_reason"], "stop")

    def test_stop_ids_biases_and_min_tokens(self):
        ids = self.choice()["ids"]
        first = self.choice("--stop-ids", "%d,%d" % (ids[4], ids[4]))
        self.assertEqual(first["ids"], ids[:ids.index(ids[4])])
        self.assertEqual(first["finish_reason"], "stop")
        self.assertEqual(self.choice("--stop-ids", str(ids[4]), "--include-stop")["ids"], ids[:ids.index(ids[4]) + 1])
        self.assertEqual(self.choice("--logit-bias", "65:900,66:-1.5")["ids"], [65] * 12)
        late = self.choice("--logit-bias", "65:900", "--stop-ids", "65", "--min-tokens", "5", "--include-stop")["ids"]
        self.assertEqual((len(late), late.index(65)), (6, 5))
        apart = self.choice("--presence-penalty", "1000")["ids"]
        self.assertEqual(len(set(apart)), len(apart))

    def test_ids_out_of_range_and_hostile_stops_are_refused(self):
        generate = ("generate", "--model", MODEL, *self.WORDS)
        self.says(1, "token 99999", *generate, "--logit-bias", "99999:1")
        self.says(1, "two biases", *generate, "--logit-bias", "5:1,5:2")
        self.says(1, "stop id 99999", *generate, "--stop-ids", "99999")
        self.says(1, "empty", *generate, "--stop", "")
        self.says(1, "10000 stop strings", *generate, *["--stop", "x"] * 10000)

    def test_n_answers_are_sampled_apart_and_the_first_is_the_one_alone(self):
        words = ("--temperature", "1.2", "--seed", "5")
        alone = self.choice(*words)
        choices = self.generate(*self.WORDS, *words, "--n", "3")[0]["choices"]
        self.assertEqual([choice["index"] for choice in choices], [0, 1, 2])
        self.assertEqual(choices[0], alone)
        self.assertEqual(len({tuple(choice["ids"]) for choice in choices}), 3)
        greedy = self.generate(*self.WORDS, "--n", "3")[0]["choices"]
        self.assertEqual(len({tuple(choice["ids"]) for choice in greedy}), 1)

    def test_the_best_of_some_come_with_scores(self):
        words = ("--temperature", "1.2", "--seed", "5")
        every = self.generate(*self.WORDS, *words, "--n", "4")[0]["choices"]
        best = self.generate(*self.WORDS, *words, "--n", "2", "--best-of", "4", "--logprobs", "2")[0]["choices"]
        every.sort(key=lambda choice: -choice["logprob"] / len(choice["ids"]))
        for index, (choice, other) in enumerate(zip(best, every)):
            self.assertEqual((choice["index"], choice["ids"], choice["text"]), (index, other["ids"], other["text"]))
            self.assertAlmostEqual(choice["score"], choice["logprob"] / 12, places=12)
            self.assertEqual([place["id"] for place in choice["logprobs"]], choice["ids"])

    def test_beams_are_ordered_by_score_and_better_than_greed(self):
        words = ("--beams", "4", "--num-return", "3", "--length-penalty", "0", "--early-stopping", "never")
        choices = self.generate(*self.WORDS, *words, "--logprobs", "1")[0]["choices"]
        scores = [choice["score"] for choice in choices]
        self.assertEqual(len(scores), 3)
        self.assertEqual(scores, sorted(scores, reverse=True))
        self.assertGreaterEqual(scores[0], self.choice()["logprob"])
        for choice in choices:
            self.assertEqual(choice["score"], choice["logprob"])
            self.assertAlmostEqual(sum(place["logprob"] for place in choice["logprobs"]), choice["logprob"], places=9)
        one = self.choice("--beams", "1")
        self.assertEqual(one["ids"], self.choice()["ids"])
        two = self.generate(*self.WORDS, *words, "--logprobs", "1", ranks=2)[0]["choices"]
        self.assertEqual(two, choices)

    def test_answers_are_shown_under_their_numbers(self):
        words = ["generate", "--model", MODEL, "--quiet", "--prompt", "ab", "--max-tokens", "6", "--ignore-eos",
                 "--temperature", "1", "--seed", "4"]
        shown = self.good(*words, "--n", "2").stdout
        one = self.good(*words).stdout
        self.assertTrue(shown.startswith(b"==> answer 1 <==\n" + one + b"\n==> answer 2 <==\n"), shown)
        both = self.good(*words, "--n", "2", "--prompt", "abc").stdout
        self.assertTrue(both.startswith(b"==> prompt 1, answer 1 <==\n" + one), both)
        self.assertIn(b"\n==> prompt 2, answer 2 <==\n", both)

    def test_two_ranks_decode_the_same(self):
        words = ("--logprobs", "4", "--temperature", "0.9", "--typical-p", "0.8", "--repetition-penalty", "1.2",
                 "--logit-bias", "70:1.5", "--echo")
        alone, two = (self.generate(*self.WORDS, *words, **how)[0] for how in ({}, {"ranks": 2}))
        for key in ("choices", "prompt_logprobs"):
            self.assertEqual(alone[key], two[key])


class Signals(Case):
    def stopped(self, number):
        """A long run that is told to end once text has come: its exit status, its output."""
        line = [TESSERA, "generate", "--model", MODEL, "--prompt", "x", "--ignore-eos", "--temperature", "1",
                "--max-tokens", "100000000"]
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            first = running.stdout.read(1)
            running.send_signal(number)
            out, err = running.communicate(timeout=WAIT_S)
        return running.returncode, first + out, err

    def test_a_signal_ends_the_run_and_the_text_stays(self):
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            got, out, err = self.stopped(number)
            if got == 0:
                self.skipTest("the context was full before the signal came")
            self.assertEqual(got, status, err)
            self.assertTrue(out.endswith(b"\n"))
            self.assertIn(b"generated", err)

    def test_waiting_for_a_prompt_can_be_stopped(self):
        line = [TESSERA, "generate", "--model", MODEL, "--prompt-file", "-"]
        with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            time.sleep(2)
            running.send_signal(signal.SIGINT)
            self.assertEqual(running.wait(WAIT_S), 130)


class Ranks(Case):
    def test_only_one_rank_speaks(self):
        for words in (["--version"], ["generate", "--help"], ["inspect", MODEL, "--ranks", "2"]):
            self.assertEqual(self.good(*words, ranks=2).stdout, self.good(*words).stdout, words)
        for status, words in ((2, ["generate", "--max-token", "3"]), (2, ["nothing"]),
                              (1, ["generate", "--model", "nowhere.gguf", "--prompt", "x"]),
                              (1, ["generate", "--model", MODEL, "--prompt-file", "nowhere.txt"]),
                              (1, ["generate", "--model", MODEL, "--prompt", ""])):
            done = run(*words, ranks=2)
            said = [line for line in done.stderr.splitlines() if b"tessera" in line and b"--help" not in line
                    and TESSERA.encode() not in line]
            self.assertEqual(done.returncode, status, (words, done.stderr))
            self.assertEqual(len(said), 1, (words, done.stderr))

    def test_two_ranks_give_the_same_text(self):
        words = ("--prompt", "hello", "--max-tokens", "16", "--temperature", "0.8", "--seed", "3")
        one, = self.generate(*words)
        two, = self.generate(*words, ranks=2)
        self.assertEqual((one["ids"], one["text"]), (two["ids"], two["text"]))
        done = self.good("generate", "--model", MODEL, *words, ranks=2)
        self.assertRegex(done.stderr, rb"2 ranks x \d+ thread")
        self.assertEqual(done.stderr.count(b"loaded in"), 1)

    def test_two_ranks_read_stdin_once_and_score_the_same(self):
        text = b"A text for both of them."
        words = ("perplexity", "--model", MODEL, "--json", "-")
        self.assertEqual(self.good(*words, stdin=text).stdout, self.good(*words, stdin=text, ranks=2).stdout)
        ids = self.good("tokenize", "--model", MODEL, stdin=text)
        self.assertEqual(self.good("tokenize", "--model", MODEL, stdin=text, ranks=2).stdout, ids.stdout)

    def test_a_rank_that_is_lost_is_named_and_ends_the_job(self):
        # When a process is killed its launcher sees it as well, and on a busy machine it may be the only one to be heard.
        for fault, why in (("1:kill@3", "step 3|signal 9"), ("0:kill@3", "step 3|signal 9"), ("1:stop@3", "stopped"),
                           ("1:page@3", "page of a mapped file"), ("1:alloc@0", "memory")):
            with self.subTest(fault=fault):
                os.environ["TSR_FAULT"] = fault
                try:
                    done = run("generate", "--model", MODEL, "--prompt", "On and on", "--max-tokens", "200",
                               "--ignore-eos", ranks=2)
                finally:
                    del os.environ["TSR_FAULT"]
                self.assertNotEqual(done.returncode, 0)
                words = done.stderr.decode()
                self.assertRegex(words, "rank " + fault[0] + "( of |/)2|process rank " + fault[0])
                self.assertRegex(words, why)

    def test_a_signal_to_mpirun_ends_all_ranks(self):
        line = MPIRUN + ["2", TESSERA, "generate", "--model", MODEL, "--prompt", "x", "--ignore-eos",
                         "--max-tokens", "100000000", "--temperature", "1"]
        with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as running:
            running.stdout.read(1)
            running.send_signal(signal.SIGTERM)
            running.communicate(timeout=WAIT_S)
        left = subprocess.run(["ps", "-eo", "args"], capture_output=True, check=False).stdout
        self.assertNotIn(MODEL.encode(), left)


class Bench(Case):
    def test_every_promised_row_is_there(self):
        done = json.loads(self.good("bench", "--model", MODEL, "--json", "--repeat", "1").stdout)
        rows = [(row["what"], row["batch"]) for row in done["results"]]
        self.assertEqual(rows, [("prompt", 1), ("generate", 1), ("generate", 1), ("batch", 1), ("batch", 4),
                                ("batch", 8), ("batch", 16), ("batch", 32)])
        for row in done["results"]:
            self.assertGreater(row["tok_per_s"], 0)
            self.assertGreater(row["share_of_limit"], 0)
            self.assertGreater(row["host_share"], 0)
            self.assertLess(row["host_share"], 1)
        self.assertEqual(done["results"][1]["context"], 0)
        self.assertEqual(sorted(done["memory"][0]), ["block_bytes", "copy_us", "late", "lost", "stall_us", "stalls", "tiers"])

    def test_what_memory_held_moved_and_held_up_is_told_of_each_rank(self):
        words = ["--kv-memory", "200K", "--kv-host", "1M", "--block-tokens", "16", "--ctx", "512", "--max-tokens", "100", "--ignore-eos"]
        done = self.good("generate", "--model", MODEL, "--verbose", *words, "--prompt", "ab" * 120, "--prompt", "bc" * 120, ranks=2)
        said = done.stderr.decode()
        for rank in range(2):
            for tier in ("device", "host"):
                self.assertRegex(said, r"(?m)^ +%d  %s( +[0-9]+ \([0-9.]+ MB\)){4}$" % (rank, tier))
        self.assertEqual(len(re.findall(r"copies took [0-9]+ us beside the steps; [0-9]+ steps waited for one, [0-9]+ us in all", said)), 2)
        self.assertEqual(len(re.findall(r"[0-9]+ blocks were asked for again: [0-9]+ % lay on the device, [0-9]+ % in host", said)), 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
