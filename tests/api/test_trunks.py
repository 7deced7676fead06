"""A module is a network, and small, until proven otherwise: wherever it enters, and without torch."""

import json

import numpy as np
import pytest
import safetensors.numpy

import modhub
from modhub.catalog import publish
from modhub.catalog.catalog import Catalog
from modhub.errors import IntegrityError, ManifestError
from modhub.hub.cache import Cache
from modhub.hub.directory import DirectoryHub
from modhub.manifest import FileInfo
from modhub.project.toml import Want, add_want, new_project
from modhub.refs import RepositoryId, parse_version
from tests.support.console import Console
from tests.support.paper import put, write_paper_artifact

LARGE = " If you trust its publisher and have the memory and the time, pass --allow-large."
AGAIN = " Pull or decompose it again."


def artifact(directory, change):
    """A paper artifact whose trunk's graph, weights or entry in the manifests is changed, digests true."""
    write_paper_artifact(directory, {"cat": 0.8})
    whole = json.loads((directory / "modhub.json").read_bytes())
    module_path = whole["modules"][0]["manifest"]["path"]
    module = json.loads((directory / module_path).read_bytes())
    trunk = whole["trunk"]
    graph = json.loads((directory / trunk["graph"]["path"]).read_bytes())
    tensors = safetensors.numpy.load_file(directory / trunk["weights"]["path"])
    graph = change(graph, tensors, trunk, whole) or graph
    content = graph if isinstance(graph, bytes) else json.dumps(graph).encode()
    trunk["graph"] = put(directory, trunk["graph"]["path"], content).to_dict()
    trunk["weights"] = put(directory, trunk["weights"]["path"], safetensors.numpy.save(tensors)).to_dict()
    module["trunk"], module["input"] = trunk, whole["input"]
    written = put(directory, module_path, json.dumps(module).encode())
    whole["modules"][0]["manifest"] = written.to_dict()
    put(directory, "modhub.json", json.dumps(whole).encode())
    return directory


def other_operator(graph, *_):
    graph["nodes"][0]["op"] = "exec"


def no_graph(*_):
    return b'{"trunk": "x"}'


def not_json(*_):
    return b"\x80\x04\x95 pickle"


def other_features(graph, tensors, trunk, whole):
    trunk["features"] = 9


def other_input(graph, tensors, trunk, whole):
    whole["input"]["height"] = 16


def lost_tensor(graph, tensors, *_):
    del tensors["weight"]


def other_shape(graph, tensors, *_):
    tensors["weight"] = np.zeros((8, 1, 3, 2), np.float32)


def other_type(graph, tensors, *_):
    tensors["weight"] = tensors["weight"].astype(np.float64)


def more_tensors(graph, tensors, *_):
    tensors["more"] = np.zeros(1, np.float32)


def large(graph, tensors, trunk, whole):
    """A value of 1 GiB."""
    graph["nodes"][0]["attributes"].update(padding=[2048, 2048])
    graph["nodes"][0]["attributes"].update(out_channels=16)
    tensors["weight"] = np.zeros((16, 1, 3, 3), np.float32)
    trunk.update(features=16, parameters=144, flops=16 * 9 * 4102**2)


def few_flops(graph, tensors, trunk, whole):
    trunk["flops"] = 1


def few_parameters(graph, tensors, trunk, whole):
    trunk["parameters"] = 1


NONE = [
    (
        other_operator,
        "The node 'trunk' has the operator 'exec', which is not on the allow-list. "
        "The file may be damaged, or written by a newer modhub.",
    ),
    (no_graph, "trunk/graph.json has no 'schema_version'."),
    (not_json, "trunk/graph.json is not valid JSON"),
    (other_features, "gives values of shape [8, 8, 8]; the manifest says 9 features." + AGAIN),
    (other_input, "takes images of shape [1, 8, 8]; the manifest says [1, 16, 8]." + AGAIN),
    (
        large,
        "The node 'trunk' (conv2d) has the shape [16, 4102, 4102], more than 134,217,728 numbers." + LARGE,
    ),
]
TENSORS = [
    (lost_tensor, "The node 'trunk' (conv2d) needs the tensor 'weight', which is missing." + AGAIN),
    (
        other_shape,
        "The tensor 'weight' is float32 [8, 1, 3, 2]; the node 'trunk' (conv2d) needs float32 [8, 1, 3, 3].",
    ),
    (
        other_type,
        "The tensor 'weight' is float64 [8, 1, 3, 3]; the node 'trunk' (conv2d) needs float32 [8, 1, 3, 3].",
    ),
    (more_tensors, "No node of the graph uses the tensor 'more'." + AGAIN),
]
CLAIMS = [
    (few_flops, "The trunk in trunk/graph.json has 4,608 multiply-adds, and the manifest says 1." + AGAIN),
    (few_parameters, "The trunk in trunk/graph.json has 72 parameters, and the manifest says 1." + AGAIN),
]


class World:
    def __init__(self, root, change):
        self.root = root
        self.catalog = Catalog(DirectoryHub(root / "hub"), Cache(root / "cache"))
        self.artifact = artifact(root / "artifact", change)

    def release(self):
        """As a publisher does who checks nothing."""
        publish.push(self.catalog, self.artifact, RepositoryId("lab", "net"), parse_version("1.0.0"))

    def project(self):
        folder = self.root / "project"
        folder.mkdir(exist_ok=True)
        text = add_want(new_project("t"), Want.parse("cat", "lab/net/cat"))
        (folder / "modhub.toml").write_text(text)
        return folder

    def push(self):
        modhub.push(self.artifact, "lab/pushed", version="1.0.0", hub=self.catalog)

    def verify(self):
        modhub.verify(str(self.artifact))

    def verify_release(self):
        self.release()
        modhub.verify("lab/net/cat", hub=self.catalog)

    def pull(self):
        self.release()
        modhub.pull("lab/net/cat", hub=self.catalog)

    def lock(self):
        self.release()
        modhub.lock_to(self.project(), hub=self.catalog)


@pytest.mark.parametrize(
    ("change", "message", "entrance"),
    [
        *((*case, entrance) for case in NONE for entrance in ("push", "pull", "lock")),
        *((*case, entrance) for case in TENSORS for entrance in ("verify", "pull")),
        *((*case, entrance) for case in CLAIMS for entrance in ("push", "verify_release")),
    ],
)
def test_what_is_no_network_does_not_enter(tmp_path, change, message, entrance):
    world = World(tmp_path, change)
    with pytest.raises((ManifestError, IntegrityError)) as caught:
        getattr(world, entrance)()
    assert message in str(caught.value)
    assert not (tmp_path / "project" / "modhub.lock").exists()
    if entrance == "push":
        assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize("entrance", ["push", "verify", "verify_release", "pull", "lock"])
def test_large_networks_enter_where_they_are_allowed(tmp_path, entrance):
    world = World(tmp_path, large)
    with modhub.allowing_large():
        getattr(world, entrance)()
    other = World(tmp_path / "again", large)
    with pytest.raises(ManifestError, match="--allow-large"):
        getattr(other, entrance)()


def test_the_option_says_so(tmp_path, monkeypatch, capsys):
    console = Console(tmp_path, monkeypatch, capsys)
    place = artifact(tmp_path / "artifact", large)
    refused = console("push", place, "lab/net", "--version", "1.0.0")
    assert (refused.code, refused.err) == (
        1,
        "Error: The node 'trunk' (conv2d) has the shape [16, 4102, 4102], more than 134,217,728 numbers.\n"
        f"{LARGE.strip()}\n",
    )
    console.good("push", place, "lab/net", "--version", "1.0.0", "--allow-large")
    assert console("pull", "lab/net/cat").code == 1
    console.good("pull", "lab/net/cat", "--allow-large")
    # It holds for one command.
    assert console("verify", place).code == 1
    console.good("verify", place, "--allow-large")


def test_a_claim_alone_keeps_nobody_from_pulling(tmp_path):
    world = World(tmp_path, few_flops)
    world.pull()
    world.lock()


def test_files_that_are_none_are_named(tmp_path):
    place = write_paper_artifact(tmp_path / "artifact", {"cat": 0.8})
    whole = json.loads((place / "modhub.json").read_bytes())
    path = whole["trunk"]["weights"]["path"]
    for content in (b"", b"x" * 100, (place / path).read_bytes()[:-1]):
        whole["trunk"]["weights"] = put(place, path, content).to_dict()
        module_path = whole["modules"][0]["manifest"]["path"]
        module = json.loads((place / module_path).read_bytes())
        module["trunk"] = whole["trunk"]
        whole["modules"][0]["manifest"] = FileInfo.to_dict(
            put(place, module_path, json.dumps(module).encode())
        )
        put(place, "modhub.json", json.dumps(whole).encode())
        with pytest.raises(IntegrityError, match="is not a whole safetensors file: "):
            modhub.verify(str(place))
