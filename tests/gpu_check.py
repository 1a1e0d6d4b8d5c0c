"""What can be checked only on a CUDA machine, in under ten minutes: `make gpu-check`.

    python tests/gpu_check.py [--out runs/gpu-check.json] [--skip-tests]
    python tests/gpu_check.py --rehearse   # every step on the CPU, tiny: whether this file runs, nothing about a GPU

Each check prints one line. The JSON file has the results, the machine and the throughput; please send it with an issue.
No run on a GPU has been recorded yet: a check that fails there may be the check's fault.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scoresde as sd
from scoresde.sampling import Adams

ROOT = Path(__file__).parents[1]
PARALLEL = ("--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")


@dataclass
class Check:
    """The device under test, the sizes, and what was found.

    Attributes:
        device: "cuda", or "cpu" in a rehearsal.
        full: Whether sizes are those of a GPU.
        results: One entry per check: whether it passed, its seconds and numbers.
    """

    device: str
    full: bool
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self, name: str, check: Callable[[Check], dict[str, Any]]) -> None:
        """Runs one check; an exception is a failure, and the next check follows."""
        began = time.perf_counter()
        try:
            numbers, passed, error = check(self), True, ""
        except Exception as problem:
            numbers, passed, error = {}, False, f"{type(problem).__name__}: {problem}"
        entry = {"passed": passed, "seconds": round(time.perf_counter() - began, 1), **numbers}
        self.results[name] = entry | ({"error": error[:4000]} if error else {})
        pairs = {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in numbers.items()}
        shown = ", ".join(f"{key} {value}" for key, value in pairs.items())
        print(f"{'ok    ' if passed else 'FAILED'} {name}: {shown or error[:400]}", flush=True)

    def synchronize(self) -> None:
        """Waits for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    @contextmanager
    def no_synchronization(self) -> Iterator[None]:
        """Makes every wait of the host for the device an error."""
        if self.device == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            if self.device == "cuda":
                torch.cuda.set_sync_debug_mode("default")

    def seconds(self, call: Callable[[], object], repeat: int = 5) -> float:
        """The least time of a call, after one that warms up."""
        call()
        times = []
        for _ in range(repeat if self.full else 1):
            self.synchronize()
            began = time.perf_counter()
            call()
            self.synchronize()
            times.append(time.perf_counter() - began)
        return min(times)


def model_of(check: Check, dtype: torch.dtype = torch.float32) -> sd.ScoreModel:
    """A `UNet` for 28 x 28 images, the same on every device; its output is not 0, as before training."""
    generator = torch.Generator().manual_seed(0)
    net = sd.UNet((1, 28, 28), channels=64 if check.full else 16)
    for parameter in net.parameters():
        spread = 1 / math.sqrt(max(1, parameter[0].numel() if parameter.ndim > 1 else 64))
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return sd.ScoreModel(net, sd.VPSDE(sd.Cosine()), sd.V(), event_shape=(1, 28, 28)).to(dtype=dtype).eval()


def images(count: int, seed: int = 1) -> Tensor:
    """Normal draws on the CPU, ``(count, 1, 28, 28)``."""
    return torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


def largest(a: Tensor, b: Tensor) -> float:
    """The largest difference of two tensors over the largest value of the second."""
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    return float((a - b).abs().max() / b.abs().max())


def within(difference: float, limit: float) -> float:
    """The difference, if it is below the limit."""
    if not difference < limit:
        raise AssertionError(f"the relative difference must be below {limit}, got {difference:.3g}")
    return difference


def network_agrees(check: Check) -> dict[str, Any]:
    """The network's output and the gradient of the loss on both devices, float32 without TF32."""
    model, x = model_of(check), images(8)
    other, tau = copy.deepcopy(model).to(check.device), torch.linspace(0.01, 3.0, 8)
    eps = largest(other(x.to(check.device), tau.to(check.device)).eps, model(x, tau).eps)
    gradients = []
    for each in (other, model):
        device = next(each.parameters()).device
        prediction = each(x.to(device), tau.to(device)).v
        prediction.square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten().cpu() for p in each.parameters() if p.grad is not None]))
    return {"output": within(eps, 1e-4), "gradient": within(largest(*gradients), 1e-3)}


def sampler_agrees(check: Check) -> dict[str, Any]:
    """Samples and log-densities of exact models on both devices, float64."""
    numbers = {}
    for name, sampler in (("Adams", Adams(20)), ("ODE", sd.ODE(rtol=1e-8, atol=1e-8))):
        ends = []
        for device in (check.device, "cpu"):
            exact = sd.GaussianMixture.ring().to(device)
            init = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            ends.append(sd.sample(exact, 64, sampler, init=init.to(device), start=4.0).x)
        numbers[name] = within(largest(*ends), 1e-6)
    scores = []
    for device in (check.device, "cpu"):
        exact = sd.GaussianMixture.ring().to(device)
        x = sd.GaussianMixture.ring().sample(64, generator=torch.Generator().manual_seed(0)).to(device)
        scores.append(sd.log_prob(exact, x).log_prob)
    return numbers | {"log p": within(largest(*scores), 1e-6)}


def loops_do_not_wait(check: Check) -> dict[str, Any]:
    """A sampler's steps and a training step of the `UNet`, with every synchronization an error."""
    from scoresde._core.noise import Noise
    from scoresde.sampling import SamplingContext

    model, x = model_of(check).to(check.device), images(4).to(check.device)
    with torch.no_grad():
        for sampler in (Adams(8), sd.DDPM(8), sd.SASolver(8)):
            for guard in (None, check.no_synchronization):  # the first run may create tables and handles
                noise = Noise(torch.Generator(check.device).manual_seed(1))
                context = SamplingContext(model.predict, model.sde, noise, model.sde.tau_max)
                if guard is None:
                    sampler.run(x, context)
                else:
                    with guard():
                        sampler.run(x, context)
    loss = sd.Loss(sd.ELBO(), sd.ImportanceTimesteps(sd.ELBO()))
    generator = torch.Generator(check.device).manual_seed(1)
    loss(model, x, generator).mean().backward()
    with check.no_synchronization():
        loss(model, x, generator).mean().backward()
    return {"samplers": 3}


def training_step(check: Check, model: sd.ScoreModel, x: Tensor, precision: str) -> Callable[[], None]:
    """One update by AdamW, as the training loop makes it."""
    loss = sd.Loss(sd.ELBO(), sd.ImportanceTimesteps(sd.ELBO()))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    generator = torch.Generator(check.device).manual_seed(0)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(check.device, torch.bfloat16, enabled=precision == "bf16"):
            value = loss(model, x, generator).mean()
        value.backward()
        optimizer.step()

    return step


def bf16_agrees(check: Check) -> dict[str, Any]:
    """A network in bfloat16 against float32, and its samples, whose states stay in float32."""
    model = model_of(check).to(check.device)
    half = copy.deepcopy(model).to(dtype=torch.bfloat16)
    x, tau = images(8).to(check.device), torch.linspace(0.05, 2.0, 8, device=check.device)
    with torch.no_grad():
        difference = largest(half(x, tau).v, model(x, tau).v)
    samples = sd.sample(half, 4, Adams(4), seeds=range(4))
    assert samples.x.dtype == torch.float32, samples.x.dtype
    return {"output": within(difference, 0.1)}


def compiled_agrees(check: Check) -> dict[str, Any]:
    """A compiled network against the same one as it stands."""
    model = model_of(check).to(check.device)
    compiled = copy.deepcopy(model)
    compiled.net.compile()
    x, tau = images(8).to(check.device), torch.linspace(0.05, 2.0, 8, device=check.device)
    with torch.no_grad():
        difference = largest(compiled(x, tau).v, model(x, tau).v)
    return {"output": within(difference, 1e-3)}


def throughput(check: Check) -> dict[str, Any]:
    """Images per second: training in float32, bfloat16 and compiled, sampling by 20 calls, log p and the bound."""
    batch, many = (128, 256) if check.full else (2, 2)
    x, numbers = images(batch).to(check.device), {}
    ways = [("train fp32", "no", False), ("train bf16", "bf16", False), ("train bf16 compiled", "bf16", True)]
    for name, precision, compile_it in ways if check.full else ways[:2]:
        model = model_of(check).to(check.device).train()
        if compile_it:
            model.net.compile()
        numbers[name] = batch / check.seconds(training_step(check, model, x, precision))
    model = model_of(check).to(check.device)
    sampled = check.seconds(lambda: sd.sample(model, many, Adams(20 if check.full else 2), seeds=range(many)), 3)
    numbers["sample Adams(20)"] = many / sampled
    count = 64 if check.full else 1
    settings: dict[str, Any] = {"trace": sd.Hutchinson(2), "nodes": 16 if check.full else 8}
    settings["solver"] = sd.AdaptiveSolver(0.1 if check.full else 10.0)
    events, seeds = images(count).to(check.device), range(count)
    numbers["log p"] = count / check.seconds(lambda: sd.log_prob(model, events, seeds=seeds, **settings), 1)
    numbers["bound"] = count / check.seconds(lambda: sd.continuous_vlb(model, events, seeds=seeds), 1)
    if check.device == "cuda":
        numbers["peak memory, GiB"] = torch.cuda.max_memory_allocated() / 2**30
    return {key: float(f"{value:.4g}") for key, value in numbers.items()}


def processes_agree(check: Check, *launcher: str) -> dict[str, Any]:
    """A run of two processes against one process with two accumulation parts: the same updates, to rounding."""
    if check.device == "cuda" and torch.cuda.device_count() < 2:
        return {"skipped": "one device"}
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment |= {} if check.device == "cuda" else {"ACCELERATE_USE_CPU": "true"}
    train = ["train", "--data", "digits", "--network", "MLP(width=64)", "--monitor-every", "0", "--quiet"]
    train += ["--steps", "60" if check.full else "4", "--batch-size", "64", "--lr", "0.003", "--warmup", "0"]
    with tempfile.TemporaryDirectory() as folder:
        for out, command in (
            ("two", ["-m", "accelerate.commands.launch", *launcher, *PARALLEL, "-m", "scoresde", *train]),
            ("one", ["-m", "scoresde", *train, "--accumulate", "2"]),
        ):
            command = [sys.executable, *command, "--out", f"{folder}/{out}"]
            done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=240, check=False)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-2000:]}")
        two, one = (weights_of(f"{folder}/{out}", raw=True) for out in ("two", "one"))
        if torch.equal(one, weights_of(f"{folder}/one", raw=False)):
            raise AssertionError("the raw weights are those of the average: nothing was trained")
    return {"weights": within(largest(two, one), 1e-2 if check.full else 1e-4)}


def weights_of(run: str, raw: bool) -> Tensor:
    """Every weight of a run's network in one row."""
    model = sd.load(run, raw=raw)
    assert isinstance(model, sd.ScoreModel)
    return torch.cat([parameter.flatten() for parameter in model.net.parameters()])


def tests_pass(check: Check) -> dict[str, Any]:
    """The tests that are marked "cuda"."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", "--no-header", "-x"]
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if "mark.cuda" in path.read_text(encoding="utf-8")]
    done = subprocess.run(
        [*command, *map(str, sorted(marked))], cwd=ROOT, text=True, capture_output=True, timeout=400, check=False
    )
    lines = done.stdout.strip().splitlines() or ["no output"]
    if done.returncode:
        raise RuntimeError("\n".join(lines[-40:]))
    return {"summary": lines[-1].strip("= ")}


def machine(check: Check) -> dict[str, Any]:
    """What the numbers were measured on."""
    about: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "scoresde": sd.__version__,
        "system": platform.platform(),
    }
    if check.device == "cuda":
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        about |= {"devices": names, "cuda": torch.version.cuda, "capability": torch.cuda.get_device_capability()}
    return about


def main(arguments: list[str] | None = None) -> int:
    """Runs every check; returns the number of those that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-check.json"))
    parser.add_argument("--skip-tests", action="store_true", help="leave out the tests that are marked cuda")
    parser.add_argument("--rehearse", action="store_true", help="run every step on the CPU, tiny")
    options = parser.parse_args(arguments)
    if not options.rehearse and not torch.cuda.is_available():
        print(f"gpu-check needs a CUDA device and a build of torch for it; torch {torch.__version__} sees none.")
        return 1
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    check = Check("cpu" if options.rehearse else "cuda", full=not options.rehearse)
    began = time.perf_counter()
    check.run("CPU and device: network and gradient", network_agrees)
    check.run("CPU and device: samplers and log p of exact models", sampler_agrees)
    check.run("no wait for the host in loops", loops_do_not_wait)
    check.run("bfloat16", bf16_agrees)
    if check.full:
        check.run("compiled", compiled_agrees)
    check.run("two processes (DDP)", lambda c: processes_agree(c, "--multi_gpu"))
    if check.full:
        check.run("two processes (FSDP)", lambda c: processes_agree(c, "--use_fsdp", "--fsdp_version", "2"))
    check.run("throughput, images per second", throughput)
    if not options.skip_tests and check.full:
        check.run("tests marked cuda", tests_pass)
    failed = [name for name, entry in check.results.items() if not entry["passed"]]
    report = {"rehearsal": options.rehearse, "machine": machine(check), "checks": check.results, "failed": failed}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    passed, elapsed = len(check.results) - len(failed), time.perf_counter() - began
    print(f"{passed} of {len(check.results)} checks passed in {elapsed:.0f} s; {options.out}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
