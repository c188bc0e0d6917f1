"""What this machine is."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil


def processor_here() -> str:
    """The name of the processor, or at least its kind."""
    try:
        if sys.platform == "linux":
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                name, _, value = line.partition(":")
                if name.strip() == "model name":
                    return " ".join(value.split())
        if sys.platform == "darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            return " ".join(done.stdout.split())
    except (OSError, subprocess.SubprocessError):
        pass
    return platform.processor() or platform.machine()


def cores_here() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def memory_here() -> int:
    """Main memory, in bytes."""
    found: int = psutil.virtual_memory().total
    return found
