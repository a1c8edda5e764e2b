"""The Triton forms: run by the interpreter, and compiled for three generations of GPUs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="Triton has packages for Linux only")

from companion_lib.kernels import class_gram_triton, softmax_mean_triton  # noqa: E402

KILOBYTES = {75: 64, 80: 164, 90: 228}  # of shared memory: T4, A100, H100
LONG, FLOAT = "*i64", "*fp32"
SIZES = {"d": "i32", "row_stride": "i32", "column_stride": "i32", "tiles": "i32", "columns": "i32"}
SEGMENTS = SIZES | {"order": LONG, "starts": LONG, "owner": LONG, "begin": LONG}


def test_in_the_interpreter(root):
    """In a process of its own: Triton reads TRITON_INTERPRET when it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    result = subprocess.run(
        [*command, str(Path(__file__).with_name("interpreted.py"))],
        cwd=root,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert int(re.search(r"(\d+) passed", result.stdout)[1]) >= 50
    assert "skipped" not in result.stdout


def compiled(kernel, types, constants, arch, **options):
    """Compile for ``sm_arch``, as launched: with unit strides, and pointers aligned to 16."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {name: constants[name] for name in kernel.arg_names if name in constants}
    signature = {name: types.get(name, FLOAT) for name in kernel.arg_names}
    signature |= dict.fromkeys(constants, "constexpr")
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, kind in enumerate(signature.values())
        if kind != "constexpr"
    }
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # Triton 3.9 warns that this will change


def fits(program, arch):
    assert program.asm["cubin"][:4] == b"\x7fELF"
    assert f".target sm_{arch}" in program.asm["ptx"]
    return program.metadata.shared <= 1024 * KILOBYTES[arch]


@pytest.mark.parametrize("arch", KILOBYTES)
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_class_gram_compiles(arch, dtype):
    if dtype == "bf16" and arch < 80:
        dtype = "fp32"  # what segment_grams makes of it there
    types = SEGMENTS | {"Z": f"*{dtype}", "out": f"*{dtype}"}
    depth = class_gram_triton.DEPTH
    for tile in (32, 64):
        constants = {"TILE": tile, "DEPTH": depth, "column_stride": 1}
        program = compiled(class_gram_triton.segment_gram, types, constants, arch)
        assert fits(program, arch)
        assert ("mma" in program.asm["ptx"]) == (dtype != "fp32" and arch >= 80)  # tensor cores
    constants = {"ROWS": class_gram_triton.ROWS, "TILE": 64, "DEPTH": depth, "column_stride": 1}
    assert fits(compiled(class_gram_triton.segment_product, types, constants, arch), arch)


@pytest.mark.parametrize("arch", KILOBYTES)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("columns", [7, 4096])
def test_softmax_mean_compiles(arch, biased, columns):
    bias = {} if biased else {"bias": None}
    options = softmax_mean_triton._options(1 if biased else None, columns)
    warps = options.pop("num_warps")
    for kernel in (softmax_mean_triton.softmax_update, softmax_mean_triton.softmax_gradient):
        program = compiled(kernel, SIZES, bias | options, arch, num_warps=warps)
        assert fits(program, arch)
        assert "st.local" not in program.asm["ptx"]  # a row stays in registers
