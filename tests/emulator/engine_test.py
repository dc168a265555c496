#!/usr/bin/env python3
"""The whole engine on emulated GPUs: the same text as on the CPU, byte for byte, and the same log-probabilities.

Runs under CTest, which says where things are: TESSERA, EMULATED, TINY_GGUF, MPIEXEC. Standard library only.
"""
import json
import os
import re
import subprocess
import tempfile
import unittest

TESSERA, EMULATED, TINY_GGUF = (os.environ[name] for name in ("TESSERA", "EMULATED", "TINY_GGUF"))
MPIRUN = [os.environ["MPIEXEC"], "--oversubscribe", "--bind-to", "none", "-n"]
MODELS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data", "models")
DOCS = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "docs")
FOLDER = tempfile.TemporaryDirectory(prefix="tessera-emulated-")
WAIT_S = 500
CLOSE = 0.02
COMMON = ("generate", "--threads", "1", "--ctx", "128", "--max-batch-tokens", "16", "--quiet", "--json", "--logprobs", "2",
          "--block-tokens", "16")


def tearDownModule():
    FOLDER.cleanup()


def model(name):
    """A tiny GGUF, or one of the folders of tests/data/models."""
    folder = os.path.join(MODELS, name)
    if os.path.isdir(folder):
        return folder
    path = os.path.join(FOLDER.name, name.replace("/", "-") + ".gguf")
    if not os.path.exists(path):
        subprocess.run([TINY_GGUF, name, "1", path], check=True, timeout=60)
    return path


def run(program, *words, ranks=0, **environment):
    launcher = MPIRUN + [str(ranks)] if ranks else []
    return subprocess.run(launcher + [program, *words], capture_output=True, timeout=WAIT_S, check=False,
                          env={**os.environ, **environment})


def answers(done):
    """What was said, without how long it took."""
    lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
    for line in lines:
        del line["timings"]
    return lines


class Engine(unittest.TestCase):
    def same(self, name, *words, only_gpu=(), ranks=0, **environment):
        words = COMMON + ("--model", model(name), "--deterministic", *words)
        on_cpu = run(TESSERA, *words, "--device", "cpu")
        on_gpu = run(EMULATED, *words, "--device", "cuda", *only_gpu, ranks=ranks, **environment)
        self.assertEqual(on_cpu.returncode, 0, on_cpu.stderr)
        said = re.sub(rb"emulator: .* of them graphs\n", b"", on_gpu.stderr)
        self.assertEqual((on_gpu.returncode, said), (0, b""))
        self.assertEqual(answers(on_gpu), answers(on_cpu))
        self.assertIn(b"logprob", on_cpu.stdout)
        return on_gpu.stderr

    def close(self, name, *words, reference=(), ranks=0, **environment):
        """Without --deterministic: log-probabilities near the CPU's, and so its tokens as long as no two are about as likely."""
        words = COMMON + ("--model", model(name), *words)
        on_cpu = run(TESSERA, *words, "--device", "cpu", *reference)
        on_gpu = run(EMULATED, *words, "--device", "cuda", ranks=ranks, **environment)
        self.assertEqual((on_gpu.returncode, on_gpu.stderr), (0, b""))
        self.assertNotEqual(answers(on_gpu), answers(on_cpu))  # it was another way
        for cpu_line, gpu_line in zip(answers(on_cpu), answers(on_gpu)):
            n_compared = 0
            for cpu, gpu in zip(cpu_line["choices"][0]["logprobs"], gpu_line["choices"][0]["logprobs"]):
                margin = cpu["top"][0]["logprob"] - cpu["top"][1]["logprob"]
                if margin < 2 * CLOSE:
                    break
                self.assertEqual(gpu["id"], cpu["id"])
                self.assertAlmostEqual(gpu["logprob"], cpu["logprob"], delta=CLOSE)
                n_compared += 1
            self.assertGreater(n_compared, 0)

    def test_prompts_of_many_rows_are_close_too(self):
        # There x is rounded to halves, not to int8: nearer to the CPU's f32 than its int8 is.
        words = ("--ctx", "400", "--max-batch-tokens", "160", "--prompt", 30 * "word ", "--prompt", 30 * "other ", "--max-tokens", "2")
        self.close("2/1", *words, reference=("--activations", "f32"))
        self.close("9/3", *words, reference=("--activations", "f32"), ranks=2, EMULATOR_DEVICES="2")

    def test_without_the_cpus_order_of_sums_it_is_close(self):
        self.close("2/1", "--prompt", "Once upon a time", "--max-tokens", "4", "--kv-dtype", "bf16")
        # int8 steps would make more of small differences than this model's margins bear.
        self.close("9/3", "--prompt", "Hi there", "--prompt", "A b", "--max-tokens", "3", "--activations", "f32", ranks=2,
                   EMULATOR_DEVICES="2", EMULATOR_STREAMS="random")

    def test_one_rank_gives_the_cpus_text_whenever_queued_work_is_done(self):
        for streams in ("lazy", "eager", "random"):
            self.same("2/1", "--prompt", "Once upon a time", "--max-tokens", "5", EMULATOR_STREAMS=streams)

    def test_whatever_attention_is_asked_for_and_caches_of_few_bits_give_it_too(self):
        words = ("--prompt", "Once upon a time there was a word", "--max-tokens", "3")
        for name, kv in (("mistral", "fp8"), ("gemma2", "f16"), ("bloom", "int8"), ("falcon_rw", "int4"), ("2/1", "int2"), ("gpt_oss", "f16"),
                         ("deepseek_v2", "int8"), ("x_mixed", "int4"), ("x_local_atrous", "f16")):
            self.same(name, *words, "--kv-dtype", kv)
        self.same("gemma3", *words, "--kv-dtype", "int2", ranks=2, EMULATOR_DEVICES="2")

    def test_latents_on_tensor_cores_are_close(self):
        words = ("--prompt", "Once upon a time there was a word", "--max-tokens", "3")
        self.close("deepseek_v2", *words, "--kv-dtype", "bf16")
        self.close("deepseek_v2", *words, "--kv-dtype", "f16", ranks=2, EMULATOR_DEVICES="2")

    def test_two_and_three_ranks_give_it_too(self):
        self.same("9/3", "--prompt", "Hi", "--max-tokens", "3", ranks=2, EMULATOR_DEVICES="2", EMULATOR_ORDER="reverse")
        self.same("2/1", "--prompt", "Hi there", "--max-tokens", "4", ranks=3, EMULATOR_DEVICES="2", EMULATOR_ORDER="chaos")

    def test_single_tokens_are_replayed_from_recordings_and_give_the_same(self):
        words = ("--prompt", "Once upon", "--prompt", "A", "--max-tokens", "9")
        counts = {}
        for name, ranks, more, environment in (
                ("graphs", 1, (), {"EMULATOR_STREAMS": "random", "EMULATOR_SEED": "5"}), ("none", 1, ("--no-graphs",), {}),
                ("two", 2, (), {"EMULATOR_STREAMS": "random"}), ("three", 3, (), {"EMULATOR_STREAMS": "eager"}),
                ("shared", 2, (), {"EMULATOR_DEVICES": "1"})):
            environment = {"EMULATOR_DEVICES": str(ranks), "EMULATOR_COUNT": "1", **environment}
            said = self.same("2/1", *words, *more, ranks=ranks, **environment)
            told = re.findall(rb"emulator: (\d+) works were queued, \d+ kernels and (\d+) of them graphs\n", said)
            self.assertEqual(len(told), ranks, said)
            counts[name] = [tuple(map(int, t)) for t in told]
        for name in ("graphs", "two", "three"): # the first step of a kind is not recorded
            self.assertTrue(all(n_graphs >= 5 for _, n_graphs in counts[name]), counts)
        self.assertEqual(counts["none"][0][1], 0)
        self.assertEqual(counts["shared"][0][1], 0) # the host takes part in the sums
        self.assertLess(counts["graphs"][0][0], 0.6 * counts["none"][0][0])

    def test_mixtures_of_experts_are_recorded_too(self):
        words = ("--prompt", "Once upon a time", "--prompt", "A", "--max-tokens", "5")
        for name in ("mixtral", "qwen2_moe", "qwen3_moe"):
            said = self.same(name, *words, EMULATOR_COUNT="1")
            self.assertGreaterEqual(int(re.search(rb"and (\d+) of", said)[1]), 2)
        self.same("qwen2_moe", *words, ranks=3, EMULATOR_DEVICES="3", EMULATOR_STREAMS="random")
        # More rows than experts take at once: one after another, with the host.
        self.same("qwen3_moe", "--ctx", "256", "--max-batch-tokens", "128", "--prompt", 20 * "some words ", "--max-tokens", "2")
        # Windows and sinks: on tensor cores only.
        self.close("gpt_oss", "--prompt", "Once upon a time", "--max-tokens", "4", "--kv-dtype", "bf16")

    def test_a_token_takes_as_many_launches_as_the_docs_say(self):
        def kernels(name, n_tokens):
            words = ("generate", "--threads", "1", "--ctx", "128", "--model", model(name), "--prompt", "Hi there", "--max-tokens", str(n_tokens),
                     "--no-graphs", "--device", "cuda")
            done = run(EMULATED, *words, EMULATOR_COUNT="1")
            return int(re.search(rb"queued, (\d+) kernels", done.stderr)[1])
        with open(os.path.join(DOCS, "gpu-kernels.md"), encoding="utf-8") as page:
            said = page.read()
        a_layer, beside = (int(re.search(pattern, said)[1])
                               for pattern in (r"up to 256 positions: \*\*(\d+)\*\*", r"beside the layers \*\*(\d+)\*\*"))
        for name, n_layers in (("8/8", 2), ("9/3", 3)):
            self.assertEqual(kernels(name, 6) - kernels(name, 5), beside + n_layers * a_layer, name)

    def test_a_sequence_outgrows_its_recording(self):
        said = self.same("2/1", "--ctx", "400", "--prompt", 84 * "word ", "--max-tokens", "10", EMULATOR_COUNT="1")
        self.assertGreaterEqual(int(re.search(rb"and (\d+) of", said)[1]), 5) # 256 positions are passed on the way

    def test_a_cache_that_overflows_gives_the_text_of_one_that_does_not(self):
        prompts = [word for text in ("Once upon a time there was", "A b c d e f g h i j k l m", "Hi there, hello", "Some other words and more")
                   for word in ("--prompt", text)]
        words = (*prompts, "--max-tokens", "24", "--max-sequences", "3")
        short = ("--kv-memory", "8K", "--preempt", "swap")  # four blocks of two kilobytes; all want more than twelve
        for ranks, devices, streams, lower in ((0, "1", "lazy", ("--kv-host", "64K")), (2, "2", "random", ("--kv-host", "64K")),
                                               (3, "2", "eager", ("--kv-host", "12K", "--kv-disk", "256K:" + FOLDER.name)),
                                               (2, "2", "lazy", ("--kv-disk", "256K:" + FOLDER.name))):
            for attempt in range(2 if streams == "random" else 1):
                self.same("2/1", *words, only_gpu=short + lower, ranks=ranks, EMULATOR_DEVICES=devices, EMULATOR_STREAMS=streams,
                          EMULATOR_SEED=str(attempt))

    def test_a_sequence_longer_than_the_gpus_pool_goes_on(self):
        # Some 450 tokens, and room for 96 on the GPU: a run of 256 is the CPU's, and the rest in host memory is read over the bus.
        words = ("--ctx", "512", "--prompt", 150 * "word ", "--prompt", "Hi there", "--max-tokens", "6")
        short = ("--kv-memory", "12K", "--kv-host", "256K")
        self.same("2/1", *words, only_gpu=short)
        self.same("2/1", *words, only_gpu=short, ranks=2, EMULATOR_DEVICES="2", EMULATOR_STREAMS="random")

    def test_ranks_that_share_a_gpu_meet_through_the_host(self):
        self.same("2/1", "--prompt", "Hi there", "--max-tokens", "3", ranks=2, EMULATOR_DEVICES="1")

    def test_a_lost_gpu_ends_the_job_in_words(self):
        words = COMMON + ("--model", model("2/1"), "--prompt", "Hi", "--max-tokens", "9", "--device", "cuda")
        # Only what hangs has to be waited for; the time must be enough for a busy machine to start both ranks.
        for fault, why, environment in (
                ("1:error@7", b"NCCL, an all-reduce: remote process exited or there was a network error", {}),
                ("1:hang@7", rb"waited 6 s for the others \(an all-reduce of the GPUs\)|another rank has ended the communicator",
                 {"TSR_TIMEOUT": "6"})):
            died = run(EMULATED, *words, ranks=2, EMULATOR_DEVICES="2", EMULATOR_NCCL_FAULT=fault, **environment)
            self.assertNotEqual(died.returncode, 0)
            self.assertRegex(died.stderr, why)
            self.assertRegex(died.stderr, b"rank [01]/2")

    def test_changed_logits_and_several_prompts_at_once(self):
        self.same("2/1", "--prompt", "A b", "--prompt", "Some other words", "--max-tokens", "4", "--repetition-penalty", "1.3",
                  "--temperature", "0.8", "--seed", "3")

    def test_without_a_gpu_it_says_so_and_auto_does_without(self):
        words = COMMON + ("--model", model("2/1"), "--prompt", "Hi", "--max-tokens", "2")
        refused = run(EMULATED, *words, "--device", "cuda", EMULATOR_DEVICES="0")
        self.assertEqual((refused.returncode, refused.stdout), (1, b""))
        self.assertIn(b"no GPU that this build can use (no CUDA-capable device is detected); --device cpu does without",
                      refused.stderr)
        self.assertEqual(answers(run(EMULATED, *words, EMULATOR_DEVICES="0")), answers(run(TESSERA, *words)))
        self.assertIn(b"this build has no CUDA", run(TESSERA, *words, "--device", "cuda").stderr)


    def test_a_gpu_without_room_is_told_in_words(self):
        words = COMMON + ("--model", model("9/3"), "--prompt", "Hi", "--max-tokens", "2", "--device", "cuda")
        for megabytes, kv, why in (("0", "1M", b"no room for [0-9.]+ MB of weights"), ("2", "1500K", b"no room|no memory")):
            refused = run(EMULATED, *words, "--kv-memory", kv, EMULATOR_MEMORY_MB=megabytes)
            self.assertEqual((refused.returncode, refused.stdout), (1, b""), refused.stderr)
            self.assertRegex(refused.stderr, why)

    def test_devices_are_listed(self):
        said = run(EMULATED, "inspect", "--devices", EMULATOR_DEVICES="2").stdout.decode()
        self.assertRegex(said, "GPU 0, emulated GPU, sm_90 +[0-9.]+ GB free\n  GPU 1, ")


if __name__ == "__main__":
    unittest.main()
