"""Models and samplers as one graph: programs of `torch.export`, and ONNX files.

`ExportedCall` is one network call; `ExportedSampler` is a whole run, from noise to samples, in which the times and the
weights of all steps are constants.

To sample faster in Python itself, compile the network, not the loop: ``model.net = torch.compile(model.net)``. It has
no graph breaks, and the loop around it costs little. On one CPU thread a UNet of 8 × 8 images took 0.63 times as long,
the compiled loop 0.74 times, and its compilation ten times as long.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoresde._core.annotations import check_arguments
from scoresde._core.call_inputs import device_of
from scoresde._core.checks import check_integer
from scoresde._core.noise import Noise
from scoresde._core.peer_keywords import check_keywords
from scoresde.model import Model, check_model, evaluating
from scoresde.process import V
from scoresde.process.prediction import GaussianPrediction, Prediction
from scoresde.sampling import SamplingContext, StepSampler, Whitened

__all__ = ["ExportedCall", "ExportedSampler", "export_program", "save_onnx"]

_MOST_IN_ONE_FILE = 2**30  # bytes of weights; a file of ONNX ends at 2 GiB


class ExportedCall(nn.Module):
    """One network call: data and noise estimates at a state and its OU time.

    Args:
        model: The model.
        names: Names of the conditions, in the order of the inputs after ``tau``.
    """

    def __init__(self, model: Model, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, x: Tensor, tau: Tensor, *cond: Tensor) -> tuple[Tensor, Tensor]:
        """``x0`` and ``eps`` at ``x``, ``(B, *D)`` each, and at ``tau``, ``(B,)``."""
        prediction = self.model.predict(x, tau, **dict(zip(self.names, cond)))
        return prediction.x0, prediction.eps


class ExportedSampler(nn.Module):
    """A run of a fixed-step sampler, from noise to samples.

    Args:
        model: The model.
        sampler: A step sampler, or what `calibrate` returns.
        names: Names of the conditions, in the order of the inputs after the noise.

    Attributes:
        draws: Number of draws of noise: one for the first state, and those of the steps.
    """

    def __init__(self, model: Model, sampler: StepSampler | Whitened, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.model, self.sampler, self.names = model, sampler.for_model(model), tuple(names)
        self.draws = _count_draws(model, self.sampler)

    def forward(self, noise: Tensor, *cond: Tensor) -> Tensor:
        """Samples in the view's coordinates, ``(B, *D)``, of unit normal noise, ``(draws, B, *D)``."""
        named, source = dict(zip(self.names, cond)), _GivenNoise(noise)

        def predict(x: Tensor, tau: float) -> Prediction:
            return self.model.predict(x, tau, **named)

        return _run(self.model, self.sampler, source, predict)


def _run(model: Model, sampler: StepSampler | Whitened, source: _GivenNoise, predict: object) -> Tensor:
    start = model.sde.tau_max
    x = model.sde.prior(source.noise[0], source, start)
    x, tau = sampler.run(x, SamplingContext(predict, model.sde, source, start))  # pyright: ignore[reportArgumentType]
    return x * float(model.sde.scale(tau))


class _GivenNoise(Noise):
    """Draws that are the slices of a tensor, ``(draws, *like.shape)``; counts them."""

    def __init__(self, noise: Tensor, endless: bool = False) -> None:
        super().__init__()
        self.noise, self.used, self._endless = noise, 0, endless

    def normal(self, like: Tensor) -> Tensor:
        self.used += 1
        return self.noise[0 if self._endless else self.used - 1]


def _count_draws(model: Model, sampler: StepSampler | Whitened) -> int:
    if model.event_shape is None:
        raise ValueError("export needs the event shape of the model; give event_shape to ScoreModel.")
    source = _GivenNoise(torch.zeros(1, 1, *model.event_shape), endless=True)
    _run(
        model, sampler, source, lambda x, tau: GaussianPrediction(x, tau, torch.zeros_like(x), V(), torch.zeros_like(x))
    )
    return source.used


def export_program(
    model: Model,
    sampler: StepSampler | Whitened | None = None,
    cond: Mapping[str, Tensor] | None = None,
    batch: int | None = None,
) -> torch.export.ExportedProgram:
    """A network call or a whole sampler as a program of `torch.export`.

    Args:
        model: The model; exported in evaluation mode, on its device.
        sampler: A step sampler, or what `calibrate` returns, for a whole run; None for one network call.
        cond: Conditions of one sample or more, ``(n, …)``; their shapes and types are those of the inputs.
        batch: Number of samples; None leaves it open.

    Returns:
        A program with the inputs of `ExportedCall` or of `ExportedSampler`; the names of the inputs are ``x`` and
        ``tau``, or ``noise``, then those of the conditions.

    Raises:
        TypeError: If ``model`` is not a `Model`, or its network does not read a condition.
        ValueError: If the model has no event shape, ``batch`` is not a positive integer, or it is None and the network
            computes differently for large batches.
    """
    module, inputs, shapes = _prepared(model, sampler, cond or {}, batch)
    with torch.no_grad(), evaluating(model):
        return _traced(module, inputs, shapes)


def save_onnx(
    model: Model,
    path: str | os.PathLike[str],
    sampler: StepSampler | Whitened | None = None,
    cond: Mapping[str, Tensor] | None = None,
    batch: int | None = None,
    tolerance: float = 1e-5,
) -> Path:
    """Writes a network call or a whole sampler as an ONNX file, and compares its result with torch's.

    Args:
        model: The model.
        path: The file. Weights above 1 GiB go to a second one beside it, ``path + ".data"``.
        sampler: A step sampler, or what `calibrate` returns, for a whole run; None for one network call.
        cond: Conditions of one sample or more, ``(n, …)``; their shapes and types are those of the inputs.
        batch: Number of samples; None leaves it open.
        tolerance: Largest error of onnxruntime's result on the CPU relative to the largest value of torch's.

    Returns:
        The path. The inputs and outputs are those of `ExportedCall` (``x``, ``tau`` → ``x0``, ``eps``) or of
        `ExportedSampler` (``noise`` → ``samples``), then the conditions by name.

    Raises:
        ImportError: If onnx, onnxscript or onnxruntime is missing.
        FileNotFoundError: If the folder of the file does not exist.
        RuntimeError: If the error is larger.
        ValueError: If weights are bfloat16.
        TypeError, ValueError: See `export_program`.
    """
    try:
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise ImportError("save_onnx needs onnx, onnxscript and onnxruntime: pip install 'scoresde[onnx]'.") from error
    _ = onnxscript
    module, inputs, shapes = _prepared(model, sampler, cond or {}, batch)
    names = [*(("x", "tau") if sampler is None else ("noise",)), *(cond or {})]
    path = _checked_file(Path(path), model)
    with torch.no_grad(), evaluating(model):
        program = _traced(module, inputs, shapes)
        onnx_program = torch.onnx.export(
            program,
            input_names=names,
            output_names=["x0", "eps"] if sampler is None else ["samples"],
            dynamo=True,
            verbose=False,
        )
        assert onnx_program is not None
        for node in onnx_program.model.graph.all_nodes():  # stack traces with the folders of this machine
            node.metadata_props.clear()
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        onnx_program.save(path, external_data=size > _MOST_IN_ONE_FILE)
        expected = module(*inputs)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    results = session.run(None, {name: value.cpu().numpy() for name, value in zip(names, inputs)})
    for result, value in zip(results, expected if sampler is None else [expected]):
        largest = max(float(value.abs().max()), torch.finfo(value.dtype).tiny)  # of a network that returns zeros
        error = float((torch.from_numpy(result) - value.cpu()).abs().max()) / largest
        if not error <= tolerance:
            raise RuntimeError(
                f"onnxruntime must agree with torch to {tolerance:g}, but differs by {error:.3g} of the largest value; "
                "the file was written. Pass a larger tolerance if that is precise enough."
            )
    return path


def _checked_file(path: Path, model: Model) -> Path:
    """The path, before the export, which takes long: its folder exists, and onnxruntime knows the types."""
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"the folder of the file must exist, got {path}; make {path.parent} first.")
    if any(parameter.dtype == torch.bfloat16 for parameter in model.parameters()):
        raise ValueError("weights for onnxruntime on the CPU must be float32, got bfloat16; call model.float() first.")
    return path


def _traced(module: nn.Module, inputs: tuple[Tensor, ...], shapes: Any) -> torch.export.ExportedProgram:
    """The program; a network that takes other ways from some batch size on needs a fixed one."""
    try:
        return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
    except RuntimeError as error:
        if shapes is None or "Constraints violated (batch)" not in str(error):
            raise
        bound = re.search(r"Dim\('batch', (max=\d+|min=\d+[^)]*)\)", str(error))
        raise ValueError(
            "an export with an open batch needs a network that computes the same way for every batch size, but this "
            f"one does not{'' if bound is None else f' (it does for {bound[1]})'}; fix the number of samples: batch=16."
        ) from error


def _prepared(
    model: Model, sampler: StepSampler | Whitened | None, cond: Mapping[str, Tensor], batch: int | None
) -> tuple[nn.Module, tuple[Tensor, ...], Any]:
    """The module, example inputs, and the axes whose length is left open."""
    check_model(model)
    check_arguments(export_program, {"cond": cond})
    if sampler is not None and not isinstance(sampler, (StepSampler, Whitened)):
        raise TypeError(f"sampler must be a step sampler or a calibrated one, got {sampler!r}; take Adams(10).")
    if cond:
        check_keywords(export_program, model.cond_reader(), cond)
    if batch is not None:
        check_integer("batch", batch)
    if model.event_shape is None:
        raise ValueError("export needs the event shape of the model; give event_shape to ScoreModel.")
    size, generator = (batch or 2, *model.event_shape), torch.Generator().manual_seed(0)
    device = device_of(model)
    entries = [value[:1].expand(size[0], *value.shape[1:]).contiguous() for value in cond.values()]
    if sampler is None:
        module, axes = ExportedCall(model, tuple(cond)), (0, 0)
        tau = torch.linspace(0.3, 1.0, size[0]) * min(model.sde.tau_max, 1.0)
        inputs = (torch.randn(size, generator=generator).to(device), tau.to(device))
    else:
        module, axes = ExportedSampler(model, sampler, tuple(cond)), (1,)
        inputs = (torch.randn((module.draws, *size), generator=generator).to(device),)
    if batch is not None:
        return module, (*inputs, *entries), None
    dim = torch.export.Dim("batch")
    shapes = tuple({axis: dim} for axis in axes)
    return module, (*inputs, *entries), (*shapes, tuple({0: dim} for _ in entries)) if entries else shapes
