"""The checks that need a compiler find the faults planted for them: check_clang_tidy, check_headers,
and how both learn from compile_commands.json what to do. Their runs over the project are .ci/run's.
"""

import json
import pathlib
import subprocess

import pytest

import check_clang_tidy
import check_headers
import compile_commands

FLAGS = ("-std=c++20",)


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return tmp_path


def test_commands_are_of_our_files_only(folder):
    (folder / "a.cc").write_text("")
    (folder / "build").mkdir()
    command = f"/usr/bin/c++ -I{folder} -DNAME=\\\"x\\\" -O3 -o a.o -c {folder}/a.cc"
    entry = {"directory": str(folder / "build"), "command": command, "file": f"{folder}/a.cc"}
    generated = entry | {"file": "/usr/share/b.cc"}
    (folder / "build/compile_commands.json").write_text(json.dumps([entry, entry, generated]))
    assert compile_commands.commands(folder / "build", folder) == [
        compile_commands.Command("a.cc", (f"-I{folder}", '-DNAME="x"', "-O3"))]


COUNTER = """
#include "absl/synchronization/mutex.h"
class Counter {
 public:
  void Add() { LOCK ++count_; }
 private:
  absl::Mutex mutex_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
};
void Use(Counter& counter) { counter.Add(); }
"""


@pytest.mark.parametrize("text, check", [
    (COUNTER.replace("LOCK", "const absl::MutexLock lock(&mutex_);"), ""),
    (COUNTER.replace("LOCK", ""), "clang-diagnostic-thread-safety-analysis"),
    ("int add_one(int number) { return number + 1; }\n", "readability-identifier-naming"),
    ("int First(const char* text) { return (int)text[0]; }\n", "clang-diagnostic-old-style-cast"),
], ids=["clean", "unguarded", "name", "cast"])
def test_clang_tidy(folder, text, check):
    (folder / "a.cc").write_text(text)
    found = check_clang_tidy.findings(compile_commands.Command("a.cc", FLAGS), folder)
    assert bool(found) == bool(check)
    assert all(line.startswith("a.cc:") and check in line for line in found)


def test_fingerprint_follows_what_is_read(folder):
    def fingerprint(header):
        (folder / "a.h").write_text(header)
        return check_clang_tidy.fingerprint(compile_commands.Command("a.cc", FLAGS), folder)

    (folder / "a.cc").write_text('#include "a.h"\n')
    first = fingerprint("int F();\n")
    assert fingerprint("int F();\n") == first
    assert fingerprint("int F();  // NOLINT\n") != first


def test_header_that_does_not_compile_alone(folder):
    (folder / "alone.h").write_text("#include <string>\nstd::string F();\n")
    (folder / "leaning.h").write_text("std::string F();\n")
    assert check_headers.error_of("alone.h", FLAGS, folder) == []
    found = check_headers.error_of("leaning.h", FLAGS, folder)
    assert len(found) == 1 and found[0].startswith("leaning.h: does not compile alone: ")


def test_headers_included_first_are_proven():
    assert check_headers.included_first({
        "a.cc": '// A.\n#include "a.h"\n#include "b.h"\n', "b.h": '#include "c.h"\n'}) == {"a.h"}


def test_nearest_command():
    commands = [compile_commands.Command(path, ())
                for path in ("server/rpc/a.cc", "server/main.cc", check_headers.EMULATOR)]
    assert check_headers.nearest("server/rpc/x.h", commands).path == "server/rpc/a.cc"
    assert check_headers.nearest("kernels/cuda/x.cuh", commands).path == check_headers.EMULATOR
