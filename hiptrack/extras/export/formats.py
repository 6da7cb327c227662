"""The two file formats of an exported graph: each writes a `Graph` and gives back what runs its file."""

import importlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from hiptrack.errors import HiptrackError

OPSET = 18
LARGEST_FILE = 2**31 - 2**20  # bytes; protobuf holds no more than 2 GiB, so larger weights go to a file beside it


@dataclass(frozen=True)
class Runner:
    """What runs a file: called with tensors in the order of its inputs, it gives a tuple of tensors.

    inputs, outputs: [(type, shape)] of each, as the file itself says.
    """

    run: Callable[..., tuple[torch.Tensor, ...]]
    inputs: list[tuple[str, list[int]]]
    outputs: list[tuple[str, list[int]]]

    def __call__(self, *tensors):
        return self.run(*tensors)


ONNX_TYPES = {
    "tensor(float)": "float32",
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxFormat:
    """ONNX, run with onnxruntime on the CPU."""

    suffix = ".onnx"
    runs_code = False  # whether a file can run code while it is read

    def write(self, graph, example, path):
        """Write a graph that takes tensors like `example`. Raises HiptrackError where a package is missing."""
        require("onnx", "onnxscript", "onnxruntime")
        program = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=graph.inputs,
            output_names=graph.outputs,
            custom_translation_table={torch.ops.aten.sort.stable: stable_sort},
        )
        weights = sum(tensor.nbytes for tensor in graph.state_dict().values())
        program.save(path, external_data=weights > LARGEST_FILE)

    def load(self, path):
        """The Runner of a file."""
        onnxruntime = require("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]

        def run(*tensors):
            given = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
            return tuple(torch.from_numpy(output) for output in session.run(None, given))

        def told(tensors):
            return [(ONNX_TYPES.get(tensor.type, tensor.type), list(tensor.shape)) for tensor in tensors]

        return Runner(run, told(session.get_inputs()), told(session.get_outputs()))


class TorchFormat:
    """`torch.export`, run with PyTorch on the CPU."""

    suffix = ".pt2"
    runs_code = True  # it is unpickled

    def write(self, graph, example, path):
        program = torch.export.export(graph, example, strict=False)
        program.example_inputs = None  # a long memory would make up most of the file
        content = io.BytesIO()  # PyTorch's own writer ends the process where the disk is full
        torch.export.save(program, content)
        Path(path).write_bytes(content.getbuffer())

    def load(self, path):
        """The Runner of a file."""
        program = torch.export.load(path)
        values = {node.name: node.meta.get("val") for node in program.graph.nodes}

        def told(names):
            return [(str(values[name].dtype).removeprefix("torch."), list(values[name].shape)) for name in names]

        signature = program.graph_signature
        return Runner(program.module(), told(signature.user_inputs), told(signature.user_outputs))


FORMATS = {"onnx": OnnxFormat(), "torch": TorchFormat()}


def stable_sort(values, stable=True, dim=-1, descending=False):
    """aten.sort.stable in ONNX: TopK of all entries, where the lower index comes first among equals."""
    from onnxscript import opset18 as op

    count = op.Reshape(op.Gather(op.Shape(values), dim), [1])
    return op.TopK(values, count, axis=dim, largest=int(descending), sorted=1)


def require(*packages):
    """Import packages and return the last. Raises HiptrackError naming the first that is missing."""
    for package in packages:
        try:
            module = importlib.import_module(package)
        except ImportError as error:
            raise HiptrackError(
                f"The ONNX format needs the package {package}, which cannot be imported ({error}): "
                "pip install 'hiptrack[export]'"
            ) from error
    return module
