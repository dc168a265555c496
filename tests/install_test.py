#!/usr/bin/env python3
"""`cmake --install` into a folder of its own, and programs built against what lies there: examples/, with pkg-config and with CMake.

Runs under CTest, which says where things are: BUILD, EXAMPLES, TINY_GGUF, CMAKE, CC, MPIEXEC. Standard library only.
"""
import os
import shutil
import subprocess
import tempfile
import unittest

MPIRUN = [os.environ["MPIEXEC"], "--oversubscribe", "--bind-to", "none", "-n"]
EXAMPLES = os.environ["EXAMPLES"]
CMAKE = os.environ["CMAKE"]
CC = os.environ["CC"]
WAIT_S = 200
WORDS = "What a day"

FOLDER = tempfile.TemporaryDirectory(prefix="tessera-install-")
MODEL = os.path.join(FOLDER.name, "tiny.gguf")
PREFIX = os.path.join(FOLDER.name, "prefix")

PROJECT = """
cmake_minimum_required(VERSION 3.25)
project(embedding C)
find_package(tessera {version} EXACT REQUIRED COMPONENTS static)
find_package(MPI REQUIRED COMPONENTS C)
foreach(kind tessera static)
  add_executable(embed_${{kind}} {source})
  target_link_libraries(embed_${{kind}} PRIVATE tessera::${{kind}} MPI::MPI_C)
endforeach()
"""


def run(*words, **more):
    """stdout of what must succeed."""
    done = subprocess.run(words, capture_output=True, timeout=WAIT_S, check=False, **more)
    if done.returncode != 0:
        raise AssertionError(f"{words}: {done.returncode}\n{done.stdout.decode()}\n{done.stderr.decode()}")
    return done.stdout


def path(*names):
    return os.path.join(FOLDER.name, *names)


def library_folder():
    return os.path.dirname(next(os.path.join(folder, "libtessera.so") for folder, _, names in os.walk(PREFIX)
                                if "libtessera.so" in names))


def pkg_config(*words):
    return run("pkg-config", *words, "tessera",
               env=dict(os.environ, PKG_CONFIG_PATH=os.path.join(library_folder(), "pkgconfig"))).decode().split()


MPI = run("pkg-config", "--cflags", "--libs", "mpi-c").decode().split()  # of the examples themselves


def setUpModule():
    run(os.environ["TINY_GGUF"], "9/3", "1", MODEL)
    run(CMAKE, "--install", os.environ["BUILD"], "--prefix", PREFIX)
    # One that says at once where it was built is of no use to others.
    os.environ["LD_LIBRARY_PATH"] = library_folder()


def tearDownModule():
    FOLDER.cleanup()


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """What the command says, and so what every program must say."""
        command = (os.path.join(PREFIX, "bin", "tessera"), "generate", "--model", MODEL, "--prompt", WORDS, "--max-tokens", "64")
        cls.text = run(*command)
        cls.answer = run(*command, "--chat")
        assert cls.text.strip() and cls.text != cls.answer

    def answers(self, *program):
        self.assertEqual(run(*MPIRUN, "2", *program, MODEL, WORDS), self.answer)

    def test_a_program_finds_it_through_pkg_config(self):
        source = os.path.join(EXAMPLES, "embed_mpi.c")
        run(CC, "-Wall", "-Wextra", "-Wpedantic", "-Werror", source, *pkg_config("--cflags", "--libs"), *MPI, "-o", path("shared"))
        self.answers(path("shared"))
        archive = [os.path.join(library_folder(), "libtessera.a") if word == "-ltessera" else word
                   for word in pkg_config("--static", "--cflags", "--libs")]
        run(CC, source, *archive, *MPI, "-o", path("static"))
        self.answers(path("static"))
        self.assertNotIn(b"libtessera", run("ldd", path("static")))

    def test_a_program_finds_it_through_cmake(self):
        os.mkdir(path("project"))
        with open(path("project", "CMakeLists.txt"), "w", encoding="utf-8") as file:
            file.write(PROJECT.format(version=pkg_config("--modversion")[0], source=os.path.join(EXAMPLES, "embed_mpi.c")))
        run(CMAKE, "-G", "Ninja", "-S", path("project"), "-B", path("made"), "-DCMAKE_PREFIX_PATH=" + PREFIX, "-DCMAKE_C_COMPILER=" + CC)
        run(CMAKE, "--build", path("made"))
        self.answers(path("made", "embed_tessera"))
        self.answers(path("made", "embed_static"))

    def test_python_does_the_same_in_sixty_lines(self):
        script = os.path.join(EXAMPLES, "embed.py")
        with open(script, encoding="utf-8") as file:
            self.assertLessEqual(len(file.readlines()), 60)
        self.assertEqual(run(*MPIRUN, "2", "python3", script, MODEL, WORDS), self.text)
        self.assertEqual(run("python3", script, MODEL, WORDS), self.text)

    def test_a_program_that_is_no_rank_starts_ranks_of_its_own(self):
        run(CC, "-Wall", "-Wextra", "-Wpedantic", "-Werror", os.path.join(EXAMPLES, "embed_client.c"),
            *pkg_config("--cflags", "--libs"), "-o", path("client"))
        environment = dict(os.environ, PATH=os.path.join(PREFIX, "bin") + ":" + os.environ["PATH"])
        self.assertEqual(run(path("client"), MODEL, "2", WORDS, env=environment), self.answer)

    def test_a_question_that_cannot_be_answered_ends_in_words_on_all_ranks(self):
        run(CC, os.path.join(EXAMPLES, "embed_mpi.c"), *pkg_config("--cflags", "--libs"),
            *MPI, "-o", path("wrong"))
        for words, why in ((("nothing.gguf", "Hi"), b"nothing.gguf"), ((MODEL, "day " * 20000), b"embed_mpi: ")):
            done = subprocess.run([*MPIRUN, "2", path("wrong"), *words], capture_output=True, timeout=WAIT_S, check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(why, done.stderr)

    def test_headers_are_the_public_ones_and_do_without_the_tree(self):
        found = sorted(os.path.relpath(os.path.join(folder, name), os.path.join(PREFIX, "include"))
                       for folder, _, names in os.walk(os.path.join(PREFIX, "include")) for name in names)
        self.assertEqual(found, ["tessera.h", "tessera/status_code.h"])
        for language in ("c17", "c++17"):
            run(CC, "-x", language.rstrip("17"), "-std=" + language, "-Wall", "-Wextra", "-Wpedantic", "-Werror",
                "-fsyntax-only", os.path.join(PREFIX, "include", "tessera.h"))

    def test_pages_and_completions_lie_where_they_are_looked_for(self):
        share = os.path.join(PREFIX, "share")
        for name in ("man/man1/tessera.1", "man/man1/tessera-generate.1", "man/man3/libtessera.3",
                     "bash-completion/completions/tessera", "zsh/site-functions/_tessera", "fish/vendor_completions.d/tessera.fish"):
            self.assertGreater(os.path.getsize(os.path.join(share, name)), 500, name)

    def test_the_shared_library_says_which_abi_it_has(self):
        link = os.readlink(os.path.join(library_folder(), "libtessera.so"))
        header = os.path.join(PREFIX, "include", "tessera.h")
        with open(header, encoding="utf-8") as file:
            number = file.read().split("#define TSR_TESSERA_ABI ")[1].split()[0]
        self.assertEqual(link, "libtessera.so." + number)
        self.assertIn(b"[libtessera.so.%s]" % number.encode(), run("readelf", "-d", os.path.join(library_folder(), link)))


if __name__ == "__main__":
    for tool in ("pkg-config", "ldd", "readelf"):
        assert shutil.which(tool), tool
    unittest.main()
