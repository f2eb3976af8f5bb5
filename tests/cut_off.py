"""Do a step of the live model's store again and again, killed before its first, second, ... operation on the disk.

LD_PRELOAD=cut_off.so python -m tests.cut_off FOLDER STEP: prints how many operations there were. The library counts what SQLite
asks of the system (write, truncate, sync, unlink), and kills the process before one of them.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
from pathlib import Path

from examples.user_profile import live

from . import test_example_live as tests

LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>
static long left = -1;
static char folder[4096];
void arm(long n, const char *where) { strncpy(folder, where, sizeof folder - 1); left = n; }
static void count(const char *path) {
  if (left >= 0 && !strncmp(path, folder, strlen(folder)) && left-- == 0) kill(getpid(), SIGKILL);
}
static void count_fd(int fd) {
  char link[64] = "/proc/self/fd/", path[4096] = {0}, digits[16];
  int n = 0, at = strlen(link);
  do digits[n++] = '0' + fd % 10; while (fd /= 10);
  while (n) link[at++] = digits[--n];
  link[at] = 0;
  if (left >= 0 && readlink(link, path, sizeof path - 1) > 0) count(path);
}
#define COUNTED(type, name, parameters, counts, arguments) \
  type name parameters { counts; return ((type (*) parameters)dlsym(RTLD_NEXT, #name)) arguments; }
COUNTED(ssize_t, write, (int fd, const void *b, size_t n), count_fd(fd), (fd, b, n))
COUNTED(ssize_t, pwrite, (int fd, const void *b, size_t n, off_t o), count_fd(fd), (fd, b, n, o))
COUNTED(ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t o), count_fd(fd), (fd, b, n, o))
COUNTED(int, ftruncate, (int fd, off_t n), count_fd(fd), (fd, n))
COUNTED(int, ftruncate64, (int fd, off64_t n), count_fd(fd), (fd, n))
COUNTED(int, fsync, (int fd), count_fd(fd), (fd))
COUNTED(int, fdatasync, (int fd), count_fd(fd), (fd))
COUNTED(int, unlink, (const char *path), count(path), (path))
"""


def main(kept: Path, step: str) -> int:
    """Return the number of operations before each of which the step was killed."""
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    log = live.Store(kept).events()
    folder = kept.with_name("cut")
    for name in ("_train", "_learn_months"):
        setattr(live, name, tests.only_once(getattr(live, name)))

    def begin() -> live.Store:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(kept, folder)
        return live.Store(folder)

    store = begin()
    before = tests.seen(store)
    tests.STEPS[step](store, log)
    after = tests.seen(store)
    for k in range(10_000):
        begin()
        pid = os.fork()
        if pid == 0:
            shim.arm(k, str(folder.resolve()).encode())
            try:
                tests.STEPS[step](live.Store(folder), log)
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        again = live.Store(folder)
        found = tests.seen(again)
        assert found in (before, after), f"{step} killed before operation {k}"
        assert again.file.exists() and (found == before or step != "forget" or not tests.traces(again, "c0001"))
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0 and found == after
            return k
        assert os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError("it never ended")


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), sys.argv[2]))
