"""tests/data/tokenizer/make_rules.py - what the library makes of texts, for tokenizers with other parts than their own.

    python3 tests/data/tokenizer/make_rules.py > tests/data/tokenizer/rules.jsonl

Made with the Python package tokenizers 0.22.2. A line: "base" (a folder of tests/data/models), "set" (what replaces the base's own),
"cases" (a text, its ids, and their text).
"""
import json
import pathlib
import random
import sys

import tokenizers

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))
import tokenizer_check  # noqa: E402


def settings(model):
    return {key: value for key, value in model.items() if key not in ("vocab", "merges")}


def main():
    for base in ("llama2", "gemma", "mpt", "gpt2", "falcon7b", "llama3"):
        own = json.loads((HERE.parent / "models" / base / "tokenizer.json").read_text(encoding="utf-8"))
        dice = random.Random(base)
        n_made = 0
        while n_made < 24:
            tried = tokenizer_check.variants(own, dice)
            special = [token["content"] for token in tried["added_tokens"]]
            if tried["model"].get("continuing_subword_prefix"):
                continue  # it wants a vocabulary of its own
            cases = []
            try:
                library = tokenizers.Tokenizer.from_str(json.dumps(tried))
                if not tokenizer_check.is_definite(library, tried):
                    continue
                for _ in range(4):
                    text = tokenizer_check.text_of(dice, special, [], rare=False)
                    ids = library.encode(text, add_special_tokens=False).ids
                    cases.append({"text": text, "ids": ids, "decoded": library.decode(ids, skip_special_tokens=False)})
            except BaseException:  # what the library cannot do is no case
                continue
            changed = {key: tried[key] for key in ("normalizer", "pre_tokenizer", "decoder", "added_tokens") if tried[key] != own[key]}
            if settings(tried["model"]) != settings(own["model"]):
                changed["model"] = settings(tried["model"])
            print(json.dumps({"base": base, "set": changed, "cases": cases}))
            n_made += 1


if __name__ == "__main__":
    main()
