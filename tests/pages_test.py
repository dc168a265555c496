#!/usr/bin/env python3
"""Manual pages and completions say what the commands understand: they are written by the program, and held to its `--help`.

Runs under CTest, which says where things are: TESSERA, SOURCE. Standard library only; bash, and mandoc, zsh and fish where they
are installed.
"""
import os
import re
import shutil
import subprocess
import tempfile
import unittest

TESSERA = os.environ["TESSERA"]
SOURCE = os.environ["SOURCE"]


def run(*words, stdin=b""):
    done = subprocess.run(words, input=stdin, capture_output=True, timeout=100, check=False)
    assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
    return done.stdout.decode()


def commands():
    text = run(TESSERA, "--help").split("\nCommands\n")[1].split("\n\n")[0]
    return re.findall(r"(?m)^  ([a-z]+) ", text)


def options(command):
    """With what each can be, as far as that is a choice."""
    found = re.findall(r"(?m)^  (--[a-z0-9-]+)(?: (\S+))?", run(TESSERA, command, "--help"))
    return {name: value.split("|") if value and "|" in value else [] for name, value in found}


def missing(*programs):
    lacking = [program for program in programs if shutil.which(program) is None]
    if lacking:
        print("skipped in part: there is no", ", ".join(lacking))
    return bool(lacking)


def bash(*words):
    """What a press of the tabulator offers behind these words; the last one is being typed."""
    script = run(TESSERA, "completion", "bash") + """
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); compopt() { :; }; _tessera; printf '%s\\n' "${COMPREPLY[@]}" """
    return run("bash", "-c", script, "bash", *words).split()


class Pages(unittest.TestCase):
    def test_every_option_of_every_command_is_on_its_page(self):
        self.assertGreater(len(commands()), 10)
        for command in commands():
            page = run(TESSERA, "manual", command).replace("\\-", "-")
            self.assertIn(f"tessera-{command} (1)", run(TESSERA, "manual").replace("\\-", "-"))
            for name, values in options(command).items():
                self.assertIn(f"\n\\fB{name}\\fR", page)
                self.assertIn("|".join(values), page)

    def test_the_page_of_the_library_names_every_function_and_no_other(self):
        with open(os.path.join(SOURCE, "engine", "tessera.map"), encoding="utf-8") as file:
            listed = set(re.findall(r"(?m)^ +(tsr_\w+);", file.read()))
        with open(os.path.join(SOURCE, "docs", "libtessera.3"), encoding="utf-8") as file:
            page = file.read()
        self.assertEqual(set(re.findall(r"(tsr_\w+)(?: |\\fR)\(\)", page)), listed)
        with open(os.path.join(SOURCE, "engine", "tessera.h"), encoding="utf-8") as file:
            header = file.read()
        version, date = (re.search(fr'#define TSR_TESSERA_{what} "(.*?)"', header).group(1) for what in ("VERSION", "DATE"))
        self.assertIn(f'.TH LIBTESSERA 3 "{date}" "tessera {version}"', page)

    def test_pages_are_well_formed(self):
        if missing("mandoc"):
            return
        with open(os.path.join(SOURCE, "docs", "libtessera.3"), encoding="utf-8") as file:
            pages = [file.read(), run(TESSERA, "manual"), *(run(TESSERA, "manual", command) for command in commands())]
        for page in pages:
            run("mandoc", "-T", "lint", "-W", "warning", stdin=page.encode())

    def test_bash_offers_every_command_option_and_choice(self):
        self.assertEqual(set(bash("tessera", "")), {*commands(), "help", "--help", "--version"})
        self.assertEqual(bash("tessera", "gen"), ["generate"])
        self.assertEqual(set(bash("tessera", "help", "")), set(commands()))
        for command in commands():
            known = options(command)
            self.assertEqual(set(bash("tessera", command, "--")), {*known, "--help"})
            for name, values in known.items():
                if values:
                    self.assertEqual(bash("tessera", command, name, ""), values)
                    self.assertEqual(bash("tessera", command, name, "=", values[-1]), [values[-1]])
        self.assertEqual(bash("tessera", "completion", "z"), ["zsh"])

    def test_bash_offers_files_where_there_may_be_one(self):
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "model.gguf")
            with open(name, "wb"):
                pass
            self.assertEqual(bash("tessera", "generate", "--model", folder + "/"), [name])
            self.assertEqual(bash("tessera", "generate", "--model", "=", folder + "/"), [name])
            self.assertEqual(bash("tessera", "inspect", folder + "/mod"), [name])
            self.assertEqual(bash("tessera", "generate", "--max-tokens", folder + "/"), [])

    def test_fish_offers_every_option_and_choice(self):
        if missing("fish"):
            return
        script = run(TESSERA, "completion", "fish")
        for command in commands():
            known = options(command)
            text = run("fish", "--no-config", "-c", script + f"\ncomplete -C 'tessera {command} --'")
            self.assertEqual({line.split("\t")[0] for line in text.splitlines()}, {*known, "--help"})
        text = run("fish", "--no-config", "-c", script + "\ncomplete -C 'tessera generate --device '")
        self.assertEqual([line.split("\t")[0] for line in text.splitlines()], ["auto", "cpu", "cuda"])

    def test_zsh_understands_its_script(self):
        if missing("zsh"):
            return
        script = run(TESSERA, "completion", "zsh")
        run("zsh", "-f", "-n", "-c", script)
        for command in commands():  # _arguments is given one word for each
            words = run("zsh", "-f", "-c", "_arguments() { print -rl -- \"$@\" }\nCURRENT=3; words=(tessera %s --)\n%s" % (
                command, script.replace("local -a commands=(", "local -a commands; commands=("))).splitlines()
            self.assertEqual({re.match(r"\*?(--[a-z0-9-]+)", word).group(1) for word in words if "--" in word[:3]},
                             {*options(command), "--help"})


if __name__ == "__main__":
    unittest.main()
