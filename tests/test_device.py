"""What the machine can do is looked up, and memory goes back to it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from diamond_core.config import RuntimeConfig
from diamond_core.device import SWITCH, find_device, has_bfloat16, resolve, trim_memory


def test_instructions_that_are_switched_off_are_not_counted_on(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.delenv(SWITCH, raising=False)
    cpu = torch.device("cpu")
    assert has_bfloat16(cpu) and resolve(RuntimeConfig("cpu")).dtype == torch.bfloat16
    for limit in ("AVX2", "avx2", "AVX512_CORE"):
        monkeypatch.setenv(SWITCH, limit)
        assert not has_bfloat16(cpu) and resolve(RuntimeConfig("cpu")).dtype == torch.float32
    monkeypatch.setenv(SWITCH, "avx512_core_amx")
    assert has_bfloat16(cpu)


def test_a_gpu_is_named_by_number_since_every_thread_has_a_current_one_of_its_own(monkeypatch):
    for name, value in (("is_available", True), ("device_count", 2), ("current_device", 1)):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    found = [str(find_device(name)) for name in ("auto", "cuda", "cuda:0", "cpu")]
    assert found == ["cuda:1", "cuda:1", "cuda:0", "cpu"]


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bfloat16_that_a_gpu_only_emulates_is_not_chosen(monkeypatch, capability, fast):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    assert has_bfloat16(torch.device("cuda", 0)) is fast


@pytest.mark.parametrize("missing", ["Triton", "a C compiler"])
def test_a_gpu_without_a_compiler_is_not_compiled_for(monkeypatch, missing):
    for name, value in (("is_available", True), ("device_count", 1), ("current_device", 0)):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    there = {"Triton": True, "a C compiler": True}
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: there["Triton"])
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/gcc" if there["a C compiler"] else None)
    assert resolve(RuntimeConfig("cuda")).compile
    there[missing] = False
    assert not resolve(RuntimeConfig("cuda")).compile and resolve(RuntimeConfig("cuda", compile="on")).compile


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be told to")
def test_freed_memory_goes_back():
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    large, small = [], []
    for _ in range(400):
        # below what the C library asks the kernel for one by one
        large.append(bytearray(100_000))
        small.append(bytearray(1_000))
    before = resident()
    large.clear()
    if not trim_memory():
        pytest.skip("another C library")
    assert before - resident() > 20e6 / 4096, "half of it"
