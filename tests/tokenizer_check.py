"""tests/tokenizer_check.py - random texts through our tokenizers and through the library that tokenizer.json comes from.

    tokenizer_check.py --lines build/tests/tokenizer_lines [--texts N] [--seed S] [--rules] tokenizer.json...

Needs the Python package `tokenizers`; without it, it says so and ends with status 77. With --rules the files are also tried with
other normalizers, pre-tokenizers, models' settings and decoders than their own. Prints what differs; status 1 if anything does.
"""
import argparse
import copy
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

try:
    import tokenizers
except ImportError:
    print("skipped: the Python package tokenizers is not here")
    sys.exit(77)

ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "0123456789",
    " ",
    " \t\n\r\u00a0\u3000\u2003\u200b\u2581\u0085\u2028",
    ".,;:!?'\"()[]{}<>|/\\@#$%^&*-_=+~`",
    "\u00e9\u00e8\u00fc\u00f1\u00df\u00e7\u0130\u0131\u017f\ufb01\u2167\u00bd\u00b2\u24b6",
    "\u0301\u0316\u0327\u0308\u0345\u05b0\u0e38\u3099",
    "\u4e00\u6f22\u5b57\u3042\u30a2\uac00\u1100\u1161\u11a8",
    "\u0430\u0431\u0432\u0416\u05d0\u0627\u0648\u0915\u093e\u094d\u0e01",
    "\U0001f642\U0001f469\u200d\U0001f680\U0001f1e9\U0001f1ea\ufe0f\U0001f3fd",
    "\x00\x01\x07\x1b\x7f\x9f\ufeff\ufffd\ue000\U0010ffff",
]
WORDS = ["the", "The", " and", "n't", "'s", "'LL", "'ve", "http://", "123", "1234567", "    ", "\n\n", "\r\n", "it's", "camelCase", "HTTP",
         " x=1;", "\u00e9t\u00e9", "\u2026", "<0x0A>", "<unk>", "\u2581a", "...", "0x1F", "  a", "\u0130stanbul"]


def text_of(dice, special, pieces, rare=True):
    parts = []
    for _ in range(dice.choice([1, 2, 3, 5, 9, 20])):
        kind = dice.random()
        if kind < 0.15 and special:
            word = dice.choice(special)
            parts.append(dice.choice(["", " ", "  ", "a", "\n"]) + (word if dice.random() < 0.8 else word[:-1]) + dice.choice(["", " ", "b", "\t"]))
        elif kind < 0.35 and pieces:
            parts.append(dice.choice(pieces))
        elif kind < 0.6:
            parts.append(dice.choice(WORDS))
        elif kind < 0.97 or not rare:
            alphabet = dice.choice(ALPHABETS)
            parts.append("".join(dice.choice(alphabet) for _ in range(dice.randint(1, 8))))
        else:
            code = dice.randrange(0x30000)
            parts.append(chr(code) if unicodedata.category(chr(code)) not in ("Cs", "Cn") else "?")  # of an age that all know
    return "".join(parts)


def variants(own, dice):
    """The tokenizer with other parts than its own."""
    regexes = [r"\p{N}{1,3}", r"(?i:'s|'t|'re)| ?\p{L}+|\s+(?!\S)|\s+", r"[^\s\p{L}\p{N}]+", r"\w+|[^\w\s]+", r"\d{2}", r"(?=[A-Z])", r"\s+$",
               r"[a-z&&[^aeiou]]+", r" ?[^(\s|[.,!?\u2026])]+", r"\p{L}{1,2}+", r"^\w", r"\b", r"[^\S\n]+", r"[[:punct:]]+", r"\p{Lu}?\p{Ll}++", r"a*"]
    behaviors = ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]

    def pattern():
        return {"Regex": dice.choice(regexes)} if dice.random() < 0.7 else {"String": dice.choice([" ", "a", ".", "\u2581", "th"])}

    def normalizer(depth=0):
        kind = dice.choice(["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip", "Replace", "Prepend", "Nmt", "BertNormalizer", "ByteLevel",
                            "Sequence" if depth < 2 else "NFC"])
        if kind == "Strip":
            return {"type": kind, "strip_left": dice.random() < 0.5, "strip_right": dice.random() < 0.5}
        if kind == "Replace":
            return {"type": kind, "pattern": pattern(), "content": dice.choice(["", "\u2581", "xy", " "])}
        if kind == "Prepend":
            return {"type": kind, "prepend": dice.choice(["\u2581", " ", "q"])}
        if kind == "BertNormalizer":
            return {"type": kind, "clean_text": dice.random() < 0.5, "handle_chinese_chars": dice.random() < 0.5,
                    "strip_accents": dice.choice([None, True, False]), "lowercase": dice.random() < 0.5}
        if kind == "Sequence":
            return {"type": kind, "normalizers": [normalizer(depth + 1) for _ in range(dice.randint(0, 3))]}
        return {"type": kind}

    def pre_tokenizer(depth=0):
        kind = dice.choice(["ByteLevel", "Split", "Split", "Metaspace", "Whitespace", "WhitespaceSplit", "Digits", "Punctuation", "BertPreTokenizer",
                            "CharDelimiterSplit", "FixedLength", "Sequence" if depth < 2 else "Split"])
        flip = lambda: dice.random() < 0.5
        if kind == "ByteLevel":
            return {"type": kind, "add_prefix_space": flip(), "trim_offsets": flip(), "use_regex": flip()}
        if kind == "Split":
            return {"type": kind, "pattern": pattern(), "behavior": dice.choice(behaviors), "invert": flip()}
        if kind == "Metaspace":
            return {"type": kind, "replacement": "\u2581", "prepend_scheme": dice.choice(["always", "first", "never"]), "split": flip()}
        if kind == "Digits":
            return {"type": kind, "individual_digits": flip()}
        if kind == "Punctuation":
            return {"type": kind, "behavior": dice.choice(behaviors)}
        if kind == "CharDelimiterSplit":
            return {"type": kind, "delimiter": dice.choice(" a\u2581")}
        if kind == "FixedLength":
            return {"type": kind, "length": dice.randint(1, 6)}
        if kind == "Sequence":
            return {"type": kind, "pretokenizers": [pre_tokenizer(depth + 1) for _ in range(dice.randint(0, 3))]}
        return {"type": kind}

    def decoder(depth=0):
        kind = dice.choice(["ByteLevel", "ByteFallback", "Fuse", "Replace", "Metaspace", "BPEDecoder", "Sequence" if depth == 0 else "Replace"])
        if kind == "Replace":
            return {"type": kind, "pattern": {"String": dice.choice(["\u2581", "a", "\u0120"])}, "content": dice.choice([" ", "", "zz"])}
        if kind == "Metaspace":
            return {"type": kind, "replacement": "\u2581", "prepend_scheme": dice.choice(["always", "first", "never"]), "split": True}
        if kind == "BPEDecoder":
            return {"type": kind, "suffix": "</w>"}
        if kind == "Sequence":
            return {"type": kind, "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
                                               {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": dice.randint(0, 3), "stop": dice.randint(0, 2)}]}
        return {"type": kind}

    changed = copy.deepcopy(own)
    if dice.random() < 0.6:
        changed["normalizer"] = dice.choice([None, normalizer()])
    if dice.random() < 0.6:
        changed["pre_tokenizer"] = dice.choice([None, pre_tokenizer()])
    if dice.random() < 0.5:
        changed["decoder"] = dice.choice([None, decoder()])
    model = changed["model"]
    if model["type"] == "BPE" and dice.random() < 0.5:
        model["ignore_merges"] = dice.random() < 0.3
        model["fuse_unk"] = dice.random() < 0.5
        model["byte_fallback"] = dice.random() < 0.5
        model["unk_token"] = dice.choice([None, next(iter(model["vocab"]))])
        if dice.random() < 0.2:
            model["end_of_word_suffix"] = dice.choice(["e", "</w>"])
        elif dice.random() < 0.1:
            model["continuing_subword_prefix"] = "##"
            model["merges"] = []
    for token in changed["added_tokens"]:
        for flag in ("lstrip", "rstrip", "single_word", "normalized"):
            token[flag] = dice.random() < 0.3
        # Where it is no token, the library's Unigram may still make it of plain text; ours never makes a control token of that.
        token["single_word"] = token["single_word"] and not token["special"]
        # Nor where the normalizer makes another text of it.
        token["normalized"] = token["normalized"] and not token["special"]
    if dice.random() < 0.5:
        n = max(max(t["id"] for t in changed["added_tokens"]) + 1,
                len(model["vocab"]) if isinstance(model["vocab"], list) else max(model["vocab"].values()) + 1)
        for i, content in enumerate(["number", "  ", "<x>", "<x>y", "\u00e9", "a b"]):
            if content in model["vocab"] or any(content == e[0] for e in model["vocab"]):
                continue
            changed["added_tokens"].append({"id": n + 0, "content": content, "special": dice.random() < 0.3, "lstrip": dice.random() < 0.3,
                                            "rstrip": dice.random() < 0.3, "single_word": dice.random() < 0.3, "normalized": content != "  " and dice.random() < 0.5})  # without its spaces it would be nothing
            n += 1
    return changed


def is_definite(library, own):
    """May one say which token is meant? Not where the normalizer makes one text of two of them, or nothing of one."""
    texts = [token["content"] for token in own["added_tokens"] if token["normalized"]]
    if library.normalizer is not None:
        texts = [library.normalizer.normalize_str(text) for text in texts]
    return "" not in texts and len(set(texts)) == len(texts)


def compare(lines, path, own, texts, words):
    """How many texts differ; -1 if the library itself refuses."""
    try:
        library = tokenizers.Tokenizer.from_str(json.dumps(own))
    except Exception:
        return -1
    if not is_definite(library, own):
        return -1
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as out:
        json.dump(own, out)
    asked = "".join(json.dumps(text) + "\n" for text in texts)
    done = subprocess.run([lines, out.name], input=asked.encode(), capture_output=True, check=False)
    os.unlink(out.name)
    if done.returncode != 0:
        print(f"{path}: refused: {done.stderr.decode(errors='replace')[:300]}")
        return 1
    n_bad = 0
    for text, line in zip(texts, done.stdout.decode().splitlines()):
        answer = json.loads(line)
        try:
            plain = library.encode(text, add_special_tokens=False).ids
            around = library.encode(text, add_special_tokens=True).ids
            decoded = library.decode(plain, skip_special_tokens=False)
        except BaseException:  # what the library cannot do is not compared
            continue
        ours = bytes.fromhex(answer.get("hex", "")).decode(errors="replace")
        wrong = answer.get("ids") != plain or answer.get("around") != around
        if not wrong and "\ufffd" not in decoded and "\ufffd" not in ours:
            wrong = ours != decoded
        if wrong:
            n_bad += 1
            if n_bad <= words:
                print(f"{path}: {text!r}\n  library {plain} {decoded!r}\n  ours    {answer} {ours!r}")
                print("  " + json.dumps({k: own[k] for k in ("normalizer", "pre_tokenizer", "decoder")}))
                print("  " + json.dumps({k: v for k, v in own["model"].items() if k not in ("vocab", "merges")}))
    return n_bad


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--lines", required=True)
    args.add_argument("--texts", type=int, default=1000)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--rules", type=int, default=0, help="how many variants of each file")
    args.add_argument("--words", type=int, default=2, help="how many differences of each file are shown")
    args.add_argument("files", nargs="+")
    args = args.parse_args()
    n_bad = n_done = 0
    for path in args.files:
        dice = random.Random(f"{args.seed} {path}")
        with open(path, encoding="utf-8") as file:
            own = json.load(file)
        for turn in range(1 + args.rules):
            tried = own if turn == 0 else variants(own, dice)
            special = [token["content"] for token in tried["added_tokens"]]
            vocab = tried["model"]["vocab"]
            pieces = [entry[0] for entry in vocab] if isinstance(vocab, list) else list(vocab)
            texts = [text_of(dice, special, pieces) for _ in range(args.texts)]
            found = compare(args.lines, f"{path} ({turn})", tried, texts, args.words)
            n_bad += max(found, 0)
            n_done += args.texts if found >= 0 else 0
    print(f"{n_done} texts, {n_bad} differ")
    return 1 if n_bad else 0


if __name__ == "__main__":
    sys.exit(main())
