"""Each check of this folder passes on the project, and finds every fault planted in a small tree."""

import pathlib
import shutil
import subprocess

import pytest

import check_banned_words
import check_budgets
import check_includes
import check_released_proto
import check_words

CHECKS = [check_includes, check_words, check_banned_words, check_budgets]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_project_is_clean(check, root):
    assert check.violations(root) == []


@pytest.fixture
def plant(tmp_path):
    """plant(path, text): writes a file into a git repository of its own; returns its root."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)

    def write(path: str, text: str) -> pathlib.Path:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize("path, include", [
    ("kernels/a.cc", '"server/model/model.h"'),
    ("kernels/attention/structure.cc", "<ATen/ATen.h>"),
    ("server/model/m.h", '"server/engine/engine.h"'),
    ("server/model/tokenizer/t.cc", "<torch/torch.h>"),
    ("server/engine/e.cc", '"server/rpc/codec.h"'),
    ("server/engine/e.cc", '"structattn/v1/types.pb.h"'),
    ("server/engine/scheduler.cc", "<c10/core/Device.h>"),
    ("server/engine/e.cc", "<grpcpp/grpcpp.h>"),
    ("server/engine/e.cc", '"server/serving/front_door.h"'),
    ("server/serving/s.cc", '"server/rpc/codec.h"'),
    ("server/serving/s.cc", '"structattn/v1/types.pb.h"'),
    ("server/serving/s.cc", "<grpcpp/grpcpp.h>"),
    ("server/serving/s.cc", "<ATen/ATen.h>"),
    ("server/rpc/r.cc", '"client/client.h"'),
    ("server/rpc/r.cc", "<ATen/ATen.h>"),
    ("client/c.cc", '"server/engine/prompt/prompt.h"'),
    ("client/c.cc", '"kernels/check.h"'),
    ("kernels/k.cc", '"tests/reference/r.h"'),
])
def test_finds_include_against_the_arrows(plant, path, include):
    root = plant(path, f"// A file.\n  #  include {include}\n")
    found = check_includes.violations(root)
    assert len(found) >= 1 and path in found[0]


@pytest.mark.parametrize("path, include", [
    ("server/rpc/r.cc", '"structattn/v1/types.pb.h"'),
    ("server/rpc/r.cc", '"kernels/check.h"'),
    ("server/rpc/r.cc", '"server/serving/front_door.h"'),
    ("server/serving/s.cc", '"server/engine/engine.h"'),
    ("server/main.cc", '"server/rpc/server.h"'),
    ("server/model/transformer.cc", "<ATen/ATen.h>"),
    ("client/c.cc", "<grpcpp/grpcpp.h>"),
    ("tests/server/t.cc", '"client/client.h"'),
])
def test_allows_include_along_the_arrows(plant, path, include):
    assert check_includes.violations(plant(path, f"#include {include}\n")) == []


def test_finds_circle_of_folders(plant):
    plant("kernels/a/a.h", '#include "kernels/b/b.h"\n')
    plant("kernels/b/b.h", '#include "kernels/c/c.h"\n')
    found = check_includes.violations(plant("kernels/c/c.h", '#include "kernels/a/a.h"\n'))
    assert found == ["folders include each other in a circle: "
                     "kernels/a -> kernels/b -> kernels/c -> kernels/a"]


def test_header_that_includes_nothing_closes_no_circle(plant):
    plant("kernels/check.h", "#include <cstdio>\n")
    plant("kernels/a/a.h", '#include "kernels/check.h"\n')
    assert check_includes.violations(plant("kernels/all.cc", '#include "kernels/a/a.h"\n')) == []


@pytest.mark.parametrize("line", [
    "// TO" "DO: later", "# FIX" "ME", "cd /ho" "me/somebody/x", 'x = "/mn' 't/model"',
    "see https://" "mirror.invalid/simple",
])
def test_finds_word(plant, line):
    assert len(check_words.violations(plant("server/a.cc", f"// ok\n{line}\n"))) == 1


@pytest.mark.parametrize("line", ["$root/home/x", "the root/work split", "https://example.com/a"])
def test_allows_word(plant, line):
    assert check_words.violations(plant("server/a.cc", f"{line}\n")) == []


@pytest.mark.parametrize("path, line, instead", [
    ("kernels/linear_qu" "ads-inl.h", "", "quantized dot product"),
    ("server/a.cc", "ReleaseRes" "ting(pool);", "paused"),
    ("docs/a.md", "The window; cal" "led by the stream.", "what it promises, not who calls it"),
])
def test_finds_banned_word(plant, path, line, instead):
    found = check_banned_words.violations(plant(path, f"ok\n{line}\n"))
    assert len(found) == 1 and found[0].startswith(path) and found[0].endswith(f": {instead}")


@pytest.mark.parametrize("path, line", [
    ("server/a.cc", "an interesting quadratic form; the rest"),
    ("tests/golden/a.jsonl", "tells no" "body"),
])
def test_allows_other_word(plant, path, line):
    assert check_banned_words.violations(plant(path, f"{line}\n")) == []


def test_finds_stranger_at_the_top_level(plant):
    plant(".hidden", "")
    found = check_words.violations(plant("utils/a.cc", ""))
    assert found == ["utils: does not belong to the top level"]


def function(lines: int, parameters: int = 0) -> str:
    names = ", ".join(f"int p{index}" for index in range(parameters))
    return f"int F({names}) {{\n" + "".join(f"  Call{n}();\n" for n in range(lines - 2)) + "}\n"


@pytest.mark.parametrize("path, text, words", [
    ("server/a.cc", "x\n" * 601, "lines 601, allowed 600"),
    ("server/a.cc", function(91), "lines 91, allowed 90"),
    ("kernels/a.cu", function(161), "lines 161, allowed 160"),
    ("server/a.cc", function(5, 7), "parameters 7, allowed 6"),
])
def test_finds_too_much(plant, path, text, words):
    found = check_budgets.violations(plant(path, text))
    assert any(words in line for line in found), found


def test_finds_twins():
    found = check_budgets.check_twins({"a.cc": function(14), "b.cc": "// B.\n" + function(14)})
    assert found == ["b.cc:2: 10 lines that are also at a.cc:1"]


def test_p95_leaves_one_in_twenty():
    assert check_budgets.percentile(list(range(1, 21)), 0.95) == 19
    assert check_budgets.percentile([7], 0.95) == 7


@pytest.fixture
def proto_repository(root, plant):
    """A repository whose proto/ is the project's, committed; returns git(...), to be run in it."""
    repository = plant(".gitignore", "")
    shutil.copytree(root / "proto", repository / "proto")

    def git(*arguments: str) -> pathlib.Path:
        subprocess.run(["git", "-c", "user.name=Test", "-c", "user.email=test@example.com",
                        *arguments], cwd=repository, check=True)
        return repository

    git("add", "-A")
    git("commit", "-q", "-m", "proto: first")
    return git


def rename_field(repository: pathlib.Path) -> None:
    path = repository / "proto/structattn/v1/types.proto"
    renamed = path.read_text().replace("int32 prompt_tokens =", "int32 tokens_of_prompt =")
    assert renamed != path.read_text()
    path.write_text(renamed)


def test_before_the_first_release_nothing_breaks(proto_repository):
    rename_field(proto_repository("status"))
    assert check_released_proto.violations(proto_repository("status")) == []


def test_finds_what_breaks_clients_of_the_last_release(proto_repository):
    repository = proto_repository("tag", "v0.1.0")
    assert check_released_proto.violations(repository) == []
    rename_field(repository)
    proto_repository("commit", "-q", "-a", "-m", "proto: rename")
    found = check_released_proto.violations(repository)
    assert found and "types.proto" in found[0] and "tokens_of_prompt" in found[0]
    proto_repository("tag", "v0.2.0")
    assert check_released_proto.violations(repository) == []
