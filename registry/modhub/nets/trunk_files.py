"""Whether the files of a trunk are a network within the limits: known without torch, from few bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from modhub.errors import IntegrityError, hinting
from modhub.manifest import AGAIN, FileInfo, InputSpec, TrunkInfo
from modhub.nets.complexity import cost
from modhub.nets.graph import Graph, check_tensor_types
from modhub.nets.tensor_header import read_tensor_types
from modhub.text import parse_json


@hinting(AGAIN)
def parse_graph(content: bytes, info: TrunkInfo, spec: InputSpec) -> Graph:
    """The graph of a trunk whose manifests say `info` and `spec`.

    Raises `ManifestError` for what is no graph or exceeds the limits (see `modhub.nets.limits`), and
    `IntegrityError` for one of another input or output than the manifest says.
    """
    place = info.graph.path
    graph = Graph.from_dict(parse_json(content, place), place)
    if graph.features != info.features:
        raise IntegrityError(
            f"The trunk in {place} gives values of shape {list(graph.shapes[graph.output])}; the manifest "
            f"says {info.features} features."
        )
    image = (spec.channels, spec.height, spec.width)
    if graph.input_shape != image:
        raise IntegrityError(
            f"The trunk in {place} takes images of shape {list(graph.input_shape)}; the manifest says "
            f"{list(image)}."
        )
    return graph


@hinting(AGAIN)
def check_trunk(
    info: TrunkInfo, spec: InputSpec, locate: Callable[[FileInfo], Path], *, claims: bool = False
) -> None:
    """`parse_graph`, and the types and shapes of its weights; with `claims` also what it is said to cost."""
    graph = parse_graph(info.graph.read(locate(info.graph), f"'{info.graph.path}'", hint=AGAIN), info, spec)
    place = info.weights.path
    try:
        check_tensor_types(graph, read_tensor_types(locate(info.weights), place))
    except OSError as error:
        raise IntegrityError(f"'{place}' cannot be read: {error.strerror or error}.") from None
    counted = cost(graph)
    numbers = {
        "parameters": (info.parameters, counted.parameters),
        "multiply-adds": (info.flops, counted.flops),
    }
    for name, (claimed, number) in numbers.items():
        if claims and claimed != number:
            raise IntegrityError(
                f"The trunk in {info.graph.path} has {number:,} {name}, and the manifest says {claimed:,}."
            )
