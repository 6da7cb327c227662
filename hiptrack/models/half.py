"""Weights in half precision: half the file, the same model but for rounding; they are float32 again where they are loaded."""

import os
from pathlib import Path

from hiptrack.errors import CheckpointError
from hiptrack.models.weights import load_model, read_metadata, save_weights


def halve(source, output):
    """Write a weights file of ours in float16, with what it says of itself.

    Raises NotFoundError, or CheckpointError for a file that is none of ours, a value beyond float16's range (65,504), and an output
    that is the source or does not end in .safetensors.
    """
    source, output = Path(source), Path(output)
    if output.suffix != ".safetensors":
        raise CheckpointError(f"{output}: an output that ends in .safetensors was expected.")
    if os.path.realpath(output) == os.path.realpath(source):
        raise CheckpointError(f"{output} is what is read: its precision would be lost. Name another output.")
    metadata = read_metadata(source)
    bindings = metadata.pop("model")
    del metadata["format"]  # save_weights says it again
    model = load_model(source).half()
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise CheckpointError(
                f"{source}: {name} has values that float16 cannot hold (beyond 65,504, or not finite)."
            )
    save_weights(output, model, bindings, **metadata)
