#!/usr/bin/env python3
"""What the translator does not understand stops the build, by name and with the line of the .cu file."""
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TRANSLATOR = Path(__file__).with_name("ptx_to_c.py")
MODULE = """.version 9.0
.target sm_90
.address_size 64
{outside}
.entry some_kernel(
    .param .u64 some_kernel_param_0
)
{{
    .reg .b32 %r<4>;
    .reg .f32 %f<4>;
    .reg .b64 %rd<4>;
    .loc 1 41 3
    ld.param.u64 %rd1, [some_kernel_param_0];
    .loc 2 7 1, function_name $L__info_string0, inlined_at 1 42 5
    {inside}
    ret;
}}
.file 1 "/somewhere/kernels/some.cu"
.file 2 "/somewhere/kernels/inlined.cuh"
"""


class Translator(unittest.TestCase):
    def translate(self, inside="", outside=""):
        with tempfile.TemporaryDirectory() as folder:
            ptx, c = Path(folder, "some.ptx"), Path(folder, "some.c")
            ptx.write_text(MODULE.format(inside=inside, outside=outside))
            done = subprocess.run([sys.executable, "-B", TRANSLATOR, ptx, c], capture_output=True, text=True, check=False)
            return done.returncode, done.stderr, c.read_text() if c.exists() else ""

    def refused(self, *words, **parts):
        status, said, c = self.translate(**parts)
        self.assertNotEqual(status, 0)
        self.assertEqual(c, "")
        self.assertEqual(said.count("\n"), 1, said)
        for word in words:
            self.assertIn(word, said)

    def test_what_is_known_is_translated_with_its_line(self):
        status, said, c = self.translate("mov.u32 %r1, %tid.x; st.global.u32 [%rd1+4], %r1;")
        self.assertEqual((status, said), (0, ""))
        self.assertIn('{"some.cu", 42}', c)
        self.assertIn("simt_global(t, ", c)

    def test_unknown_instructions_are_named(self):
        for text in ("wgmma.fence.sync.aligned;", "bar.sync 1, 64;", "bar.arrive 0, 32;", "activemask.b32 %r1;",
                     "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%r1}, {%r1}, {%r1}, {%r1};",
                     "cp.async.bulk.commit_group;", "add.rz.f32 %f1, %f2, %f3;", "add.rn.ftz.f32 %f1, %f2, %f3;",
                     "cvt.rn.satfinite.e4m3x2.f32 %r1, %f1, %f2;", "atom.global.add.f16 %r1, [%rd1], %r2;"):
            self.refused("some.cu:42: kernel some_kernel: not understood: ", text.split()[0].split(".")[0].rstrip(";")[:3],
                         inside=text)

    def test_memory_that_kernels_should_not_have_is_refused(self):
        self.refused("local memory", inside=".local .align 4 .b8 depot[16];")
        self.refused("a table in device memory", outside=".const .align 4 .b8 table[4] = {1, 2, 3, 4};")

    def test_calls_are_refused(self):
        self.refused("a function that was not inlined", outside=".func helper() { ret; }")
        self.refused("instruction call.uni", inside="call.uni helper, (%r1);")

    def test_what_is_not_declared_is_refused(self):
        self.refused("operand %r9", inside="mov.u32 %r1, %r9;")
        self.refused("operand %clock", inside="mov.u32 %r1, %clock;")


if __name__ == "__main__":
    unittest.main()
