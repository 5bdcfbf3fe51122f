"""Freed memory stays with the process: large blocks need no new pages, once there are some."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from addsr.runtime.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):  # glibc before 2.38 finds a fitting place only after some
    before = faults()
    block = torch.ones(64 * 2**20, dtype=torch.uint8)
    del block
print(faults() - before)
"""


LIBRARY, VERSION = platform.libc_ver()
LIFTED = LIBRARY == "glibc" and tuple(map(int, VERSION.split("."))) >= (2, 35)  # its limit of 32 MiB


@pytest.mark.skipif(not LIFTED, reason="the allocator of recent glibc")
def test_blocks_are_used_again():
    def last(how):
        return int(
            subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout
        )

    assert last("keep") < 100 < last("not")
