"""The README says what is so: its commands run as printed and print what it shows, one after the
other in one shell, as a reader would type them.

Collected by pytest (tests/run.sh). Needs the release build and the models in the cache folder of
deploy/setup.sh; the server of the README takes the port 50051.
"""

import json
import os
import re
import socket
import subprocess

import pytest

import serving

MAX_LINES = 150
MAX_COLUMNS = 110
PORT = 50051
SESSION_TIMEOUT_S = 900
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/*.md", "*/README.md",
             "server/engine/README.md")


@pytest.fixture(scope="module")
def readme(root):
    return (root / "README.md").read_text(encoding="utf-8")


def blocks(text):
    return [(match.group(1), match.group(2)) for match in BLOCK.finditer(text)]


def sessions(text):
    """(commands, the output that is shown below them or None) for every block of commands."""
    found = blocks(text)
    for i, (kind, body) in enumerate(found):
        if kind == "sh":
            shown = found[i + 1] if i + 1 < len(found) else ("", "")
            yield body, shown[1] if shown[0] == "text" else None


def matches(shown, printed):
    """`...` stands for any part of a line; alone in its line, for any lines."""
    lines = [r"(?:.*\n)*?" if line == "..." else ".*".join(map(re.escape, line.split("..."))) + "\n"
             for line in shown.splitlines()]
    return re.fullmatch("".join(lines), printed) is not None


def test_it_can_be_read_in_a_minute(readme):
    lines = readme.splitlines()
    assert len(lines) <= MAX_LINES
    assert [line for line in lines if len(line) > MAX_COLUMNS] == []


def test_every_link_leads_to_a_file(root):
    documents = [path for pattern in DOCUMENTS for path in root.glob(pattern)]
    assert len(documents) > 6
    assert [f"{path}: {link}" for path in documents
            for link in LINK.findall(path.read_text(encoding="utf-8"))
            if not (path.parent / link).exists()] == []


def test_every_block_has_a_kind_that_is_checked(readme):
    assert {kind for kind, _ in blocks(readme)} == {"sh", "text", "json"}
    assert readme.count("```") == 2 * len(blocks(readme))
    assert len(list(sessions(readme))) >= 4


@pytest.fixture(scope="module")
def typed(root, bin_dir, models_dir, readme):
    """[(commands, shown, printed)], with everything typed into one shell that stops at a failure."""
    if bin_dir != root / "build/release/bin":
        pytest.skip("the README runs build/release")
    serving.wait_until(lambda: not is_taken(PORT))
    parts = list(sessions(readme))
    script = "".join(f"printf '\\n@@begin %d\\n' {i}\n{commands}printf '\\n@@end %d\\n' {i}\n"
                     for i, (commands, _) in enumerate(parts))
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("STRUCTATTN_SERVER", "VIRTUAL_ENV")}
    try:
        done = subprocess.run(["bash", "-e", "-s"], input=script, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False, cwd=root,
                              env=environment, timeout=SESSION_TIMEOUT_S)
        yield [(commands, shown, printed_of(i, done.stdout))
               for i, (commands, shown) in enumerate(parts)]
    finally:
        subprocess.run([root / "deploy/quickstart.sh", "--stop"], check=True)
    assert not is_taken(PORT)


def is_taken(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def printed_of(i, output):
    """What block i printed, or None when it failed."""
    match = re.search(rf"^@@begin {i}\n(.*?)^@@end {i}$", output, re.MULTILINE | re.DOTALL)
    if match is None:
        print(output[-3000:])
        return None
    return match.group(1).removesuffix("\n")


@pytest.mark.slow
@pytest.mark.models
def test_every_command_exits_with_0_and_prints_what_is_shown(typed):
    for commands, shown, printed in typed:
        assert printed is not None, f"failed:\n{commands}"
        if shown is not None:
            assert matches(shown, printed), f"{commands}\nprints:\n{printed}\nshown:\n{shown}"


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.parametrize("document", ["README.md", "docs/clients.md"])
def test_the_prompt_is_one(typed, root, document):
    text = (root / document).read_text(encoding="utf-8")
    prompt, = [body for kind, body in blocks(text) if kind == "json"]
    done = subprocess.run([root / "build/release/bin/structattn", "inspect", "--prompt", "-", "--json"],
                          input=prompt, capture_output=True, text=True, check=True)
    assert {token["group"] for token in json.loads(done.stdout)["tokens"]} == {0, 1, 2}


@pytest.mark.slow
@pytest.mark.models
def test_the_python_of_the_clients_page_runs(typed, root):
    """In the environment that the README makes, against the server that it starts."""
    text = (root / "docs/clients.md").read_text(encoding="utf-8")
    program, = [body for kind, body in blocks(text) if kind == "python"]
    done = subprocess.run([root / "build/venv/bin/python", "-c", program], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[-3:]] == ["0", "1", "2"]


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.parametrize("rule", ["anchored", "shared", "isolated", "causal"])
def test_the_pictures_are_what_the_server_draws(typed, root, rule, tmp_path):
    subprocess.run([root / "build/release/bin/structattn", "inspect", "--prompt",
                    root / "deploy/prompts/six_paraphrases.json", "--rule", rule, "--svg",
                    tmp_path / "mask.svg"], capture_output=True, check=True)
    drawn = (tmp_path / "mask.svg").read_text(encoding="utf-8")
    assert drawn == (root / f"docs/masks/{rule}.svg").read_text(encoding="utf-8")
    if rule == "anchored":
        assert drawn == (root / "deploy/prompts/six_paraphrases.svg").read_text(encoding="utf-8")
