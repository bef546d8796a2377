"""Checks the arrows of the architecture: client -> proto <- rpc -> serving -> engine -> model
-> kernels.

Prints one line per violation and exits 1 if there is any:
    python check_includes.py [ROOT]
Skipping downwards is fine; nothing points up, and folders have no include cycle. Never looks at
tests/, which may include anything.
"""

import collections
import pathlib
import re
import sys

import tree

INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]', re.MULTILINE)

# What each layer may include of the project, itself included. A file belongs to the first layer
# whose prefix it has.
LAYERS = {
    "client/": ("client/", "proto"),
    "server/rpc/": ("server/rpc/", "server/serving/", "server/engine/", "server/model/", "kernels/",
                    "proto"),
    "server/serving/": ("server/serving/", "server/engine/", "server/model/", "kernels/"),
    "server/engine/": ("server/engine/", "server/model/", "kernels/"),
    "server/model/": ("server/model/", "kernels/"),
    "server/": ("server/", "kernels/"),
    "kernels/": ("kernels/",),
}

# Generated from proto/, or a library's.
PROTO = re.compile(r"(structattn/v1|google/rpc|grpc/health/v1)/.*\.pb\.h$")
GRPC = re.compile(r"(grpcpp/|grpc\+\+/|grpc/|google/protobuf/)")
TORCH = re.compile(r"(ATen/|torch/|c10/|caffe2/)")

# gRPC only at the border; LibTorch only where tensors live, so that the rest builds without it.
GRPC_FOLDERS = ("client/", "server/rpc/", "server/main.cc")
TORCH_FILES = re.compile(r"server/model/[^/]+$|kernels/.*_cuda\.cc$")


def included_layer(name: str) -> str:
    """The layer word that LAYERS uses for an include, or nothing for a library's header."""
    if PROTO.match(name):
        return "proto"
    return name if name.startswith(("client/", "server/", "kernels/")) else ""


def violations_of(path: str, source: str) -> list[str]:
    layer = next((prefix for prefix in LAYERS if path.startswith(prefix)), None)
    if layer is None:
        return []
    found = []
    for _, name in INCLUDE.findall(source):
        target = included_layer(name)
        if target and not target.startswith(LAYERS[layer]):
            found.append(f"{path}: includes {name}; {layer} may include {', '.join(LAYERS[layer])}")
        if name.startswith(("tests/", "..")):
            found.append(f"{path}: includes {name}, which is not below its own root")
        if (GRPC.match(name) or target == "proto") and not path.startswith(GRPC_FOLDERS):
            found.append(f"{path}: includes {name}; gRPC only in {', '.join(GRPC_FOLDERS)}")
        if TORCH.match(name) and not TORCH_FILES.match(path):
            found.append(f"{path}: includes {name}; LibTorch only in {TORCH_FILES.pattern}")
    return found


def project_includes(source: str) -> list[str]:
    return [name for quote, name in INCLUDE.findall(source)
            if quote == '"' and included_layer(name) not in ("", "proto")]


def folder_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """An include of a header that includes nothing of the project is no edge: it leads nowhere."""
    leaves = {path for path, source in sources.items() if not project_includes(source)}
    graph = collections.defaultdict(set)
    for path, source in sources.items():
        folder = str(pathlib.PurePosixPath(path).parent)
        targets = {str(pathlib.PurePosixPath(name).parent)
                   for name in project_includes(source) if name not in leaves}
        graph[folder] |= targets - {folder}
    return graph


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """One cycle of folders, or nothing. Depth first; `path` is the way from the start."""
    done = set()

    def visit(folder, path):
        if folder in path:
            return path[path.index(folder):] + [folder]
        if folder in done:
            return []
        for target in sorted(graph.get(folder, ())):
            cycle = visit(target, path + [folder])
            if cycle:
                return cycle
        done.add(folder)
        return []

    for start in sorted(graph):
        cycle = visit(start, [])
        if cycle:
            return cycle
    return []


def violations(root: pathlib.Path) -> list[str]:
    sources = {path: tree.text(root, path) for path in tree.files(root, tree.CPP_SUFFIXES)
               if path.startswith(("client/", "server/", "kernels/"))}
    found = [line for path, source in sources.items() for line in violations_of(path, source)]
    cycle = find_cycle(folder_graph(sources))
    if cycle:
        found.append("folders include each other in a circle: " + " -> ".join(cycle))
    return found


if __name__ == "__main__":
    lines = violations(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else tree.ROOT)
    print("\n".join(lines), end="\n" if lines else "")
    sys.exit(1 if lines else 0)
