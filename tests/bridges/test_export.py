"""Programs of torch.export and ONNX files: against the model and `sample`, on other inputs than those of the export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde as sd
from scoresde._core.tables import place_in
from scoresde.adapters import FromSigmaTable
from scoresde.bridges.export import export_program, save_onnx
from scoresde.guidance import Clipping
from scoresde.nn.conditions import Classes
from scoresde.process import VE, GeometricSigma
from scoresde.sampling import DDIM, ERSDE, Adams, ExplicitGrid, Moments, NonStationary, Whitened

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")


def model_of(event_shape: tuple[int, ...] = (2,), sde: Any = None, **settings: Any) -> sd.ScoreModel:
    net = sd.MLP(event_shape, width=8, depth=1, **settings)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return sd.ScoreModel(net, sde or sd.VPSDE(), sd.V(), event_shape=event_shape)


class Small(torch.nn.Module):
    """A network of few operations, because the graph of a sampler repeats it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    def forward(self, x: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.linear(x) + 0.1 * log_snr[:, None])


def calibrated(steps: int) -> Whitened:
    """A sampler with times and weights of its own in whitened coordinates, as `calibrate` returns."""
    taus = Adams().grid.times(sd.VPSDE(), steps)
    weights = tuple((1.0, *(0.0,) * i, -1.5 / steps) for i in range(steps))
    inner = NonStationary(steps, ExplicitGrid(tuple(taus)), weights=weights)
    return Whitened(inner, Moments(torch.tensor([0.3, -0.2]), torch.eye(2)[:, :1], torch.tensor([0.4]), 0.8))


def test_a_program_of_one_call_takes_any_batch(generator: torch.Generator) -> None:
    model = model_of(conditions={"label": Classes(3)})
    program = export_program(model, cond={"label": torch.tensor([1])})
    for rows in (1, 5):
        x, tau = torch.randn(rows, 2, generator=generator), torch.rand(rows, generator=generator) + 0.05
        label = torch.arange(rows) % 3
        x0, eps = program.module()(x, tau, label)
        expected = model.eval()(x, tau, label=label)
        torch.testing.assert_close(x0, expected.x0, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(eps, expected.eps, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampler", [Adams(3), calibrated(3)], ids=["adams", "calibrated"])
def test_a_program_of_a_sampler_gives_the_samples(sampler: Any, generator: torch.Generator) -> None:
    model = model_of()
    program = export_program(model, sampler)
    noise = torch.randn(1, 6, 2, generator=generator)
    expected = sd.sample(model, 6, sampler, init=noise[0]).x
    torch.testing.assert_close(program.module()(noise), expected, rtol=1e-5, atol=1e-5)


def test_the_noise_of_the_steps_is_an_input(generator: torch.Generator) -> None:
    model = model_of(sde=VE(GeometricSigma(0.02, 20.0), tau_min=0.1))  # the run ends where the view's scale is 1.1
    program = export_program(Clipping(model), ERSDE(4), batch=3)
    source = torch.Generator().manual_seed(5)
    noise = torch.stack([torch.randn(3, 2, generator=source) for _ in range(5)])
    expected = sd.sample(Clipping(model), 3, ERSDE(4), generator=torch.Generator().manual_seed(5))
    assert expected.tau == 0.1
    torch.testing.assert_close(program.module()(noise), expected.x, rtol=1e-5, atol=1e-5)


def test_onnx_of_one_call_agrees_on_other_inputs(tmp_path: Path, generator: torch.Generator) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = model_of(conditions={"label": Classes(3)})
    path = save_onnx(model, tmp_path / "call.onnx", cond={"label": torch.tensor([1])})
    x, tau, label = torch.randn(7, 2, generator=generator), torch.linspace(1e-3, 5.0, 7), torch.arange(7) % 3
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = {"x": x, "tau": tau, "label": label}
    x0, eps = session.run(["x0", "eps"], {name: value.numpy() for name, value in names.items()})
    expected = model.eval()(x, tau, label=label)
    torch.testing.assert_close(torch.from_numpy(x0), expected.x0, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.from_numpy(eps), expected.eps, rtol=1e-5, atol=1e-5)
    assert b"site-packages" not in path.read_bytes()


def test_onnx_of_a_calibrated_sampler_of_ten_calls_is_one_graph(tmp_path: Path, generator: torch.Generator) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, sampler = sd.ScoreModel(Small(), sd.VPSDE(), sd.V(), event_shape=(2,)), calibrated(11)
    path = save_onnx(model, tmp_path / "sampler.onnx", sampler)
    noise = torch.randn(1, 9, 2, generator=generator)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (samples,) = session.run(None, {"noise": noise.numpy()})
    expected = sd.sample(model, 9, sampler, init=noise[0])
    assert expected.nfe == 10
    torch.testing.assert_close(torch.from_numpy(samples), expected.x, rtol=1e-5, atol=1e-5)


def test_onnx_of_an_opened_network_of_diffusers(tmp_path: Path, generator: torch.Generator) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = sd.open_model(Path(__file__).parent / "models/diffusers/linear").model
    with pytest.raises(ValueError, match=r"open batch needs .*\(it does for max=63\); fix the number .*batch=16"):
        export_program(model)
    path = save_onnx(model, tmp_path / "call.onnx", batch=2, tolerance=1e-4)
    x, tau = torch.randn(2, 1, 8, 8, generator=generator), torch.tensor([0.02, 3.7])
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x0, _ = session.run(["x0", "eps"], {"x": x.numpy(), "tau": tau.numpy()})
    expected = model(x, tau).x0.detach()
    torch.testing.assert_close(torch.from_numpy(x0), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_table_of_levels_is_exported(generator: torch.Generator) -> None:
    adapter = FromSigmaTable(Small(), (0.1, 1.0, 3.0, 20.0))
    model = sd.ScoreModel(adapter, VE(GeometricSigma(0.02, 20.0), tau_min=0.1), event_shape=(2,))
    program = export_program(model)
    assert "searchsorted" not in str(program.graph)
    x, tau = torch.randn(4, 2, generator=generator), torch.tensor([0.01, 0.4, 1.5, 2.9])
    torch.testing.assert_close(program.module()(x, tau)[0], model.eval()(x, tau).x0, rtol=1e-5, atol=1e-5)


def test_a_network_that_returns_zeros_agrees(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model = sd.ScoreModel(Small(), sd.VPSDE(), sd.Eps(), event_shape=(2,))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.net.forward = lambda x, log_snr: 0.0 * model.net.linear(x)  # pyright: ignore
    assert save_onnx(model, tmp_path / "zero.onnx").is_file()


def test_what_onnx_cannot_hold_is_refused_before_the_export(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    with pytest.raises(FileNotFoundError, match="the folder of the file must exist"):
        save_onnx(model_of(), tmp_path / "absent" / "a.onnx")
    with pytest.raises(ValueError, match="must be float32, got bfloat16"):
        save_onnx(model_of().bfloat16(), tmp_path / "a.onnx")


@pytest.mark.parametrize("kind", ["mlp", "unet"])
def test_a_compiled_network_has_no_graph_breaks_and_the_same_samples(kind: str) -> None:
    shape = (2,) if kind == "mlp" else (1, 8, 8)
    conditions: dict[str, Any] = {"label": Classes(3)} if kind == "mlp" else {}
    net = sd.MLP(shape, 8, 1, conditions=conditions) if kind == "mlp" else sd.UNet(shape, 8, (1, 2), 1)
    cond: dict[str, Any] = {"label": torch.tensor([0, 2])} if kind == "mlp" else {}
    model = sd.ScoreModel(net, sd.VPSDE(), sd.V(), event_shape=shape)
    expected = sd.sample(model, 2, Adams(3), seeds=[1, 2], **cond).x
    compiled: Any = torch.compile(net, fullgraph=True, backend="eager")
    model.net = compiled
    assert torch.equal(sd.sample(model, 2, Adams(3), seeds=[1, 2], **cond).x, expected)


@pytest.mark.slow
def test_onnx_of_a_unet_and_steps_of_adams(tmp_path: Path, generator: torch.Generator) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    net = sd.UNet((1, 8, 8), 8, (1, 2), 1)
    model = sd.ScoreModel(net, sd.VPSDE(), sd.V(), event_shape=(1, 8, 8))
    path = save_onnx(model, tmp_path / "unet.onnx", Adams(3))
    noise = torch.randn(1, 3, 1, 8, 8, generator=generator)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (samples,) = session.run(None, {"noise": noise.numpy()})
    expected = sd.sample(model, 3, Adams(3), init=noise[0]).x
    torch.testing.assert_close(torch.from_numpy(samples), expected, rtol=1e-5, atol=1e-5)


def test_a_result_that_disagrees_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")

    class Wrong:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def run(self, _: Any, inputs: Any) -> list[Any]:
            return [inputs["noise"][0]]

    monkeypatch.setattr(runtime, "InferenceSession", Wrong)
    with pytest.raises(RuntimeError, match="onnxruntime must agree with torch to 1e-05, but differs by"):
        save_onnx(sd.ScoreModel(Small(), sd.VPSDE(), event_shape=(2,)), tmp_path / "wrong.onnx", DDIM(1))


def test_wrong_arguments_are_answered(tmp_path: Path) -> None:
    net = Small()
    with pytest.raises(ValueError, match="export needs the event shape of the model; give event_shape"):
        export_program(sd.ScoreModel(net, sd.VPSDE()))
    with pytest.raises(TypeError, match=r"sampler must be a step sampler or a calibrated one, got ODE"):
        export_program(model_of(), sd.ODE())  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="model must be a Model"):
        save_onnx(net, tmp_path / "a.onnx")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="lable"):
        export_program(model_of(), cond={"lable": torch.zeros(1)})
    with pytest.raises(ValueError, match="batch must be a positive integer"):
        export_program(model_of(), batch=0)


def test_places_in_a_table_are_the_same_in_a_program_also_at_its_entries() -> None:
    class Places(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return place_in(torch.arange(5, dtype=torch.float64), values)

    values = torch.tensor([-1.0, 0.0, 0.5, 3.0, 4.0, 9.0], dtype=torch.float64)
    expected = torch.tensor([0, 0, 1, 3, 4, 5])
    assert torch.equal(place_in(torch.arange(5, dtype=torch.float64), values), expected)
    program = torch.export.export(Places(), (values,), strict=False)
    assert torch.equal(program.module()(values), expected)
