"""Settings of a diffusers scheduler: the entries of `scheduler_config.json`, with the defaults of its class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scoresde.bridges.opened import Finding

__all__ = ["BETA_CHAINS", "DEFAULTS", "EDM", "FLOW", "SchedulerSettings"]

BETA_CHAINS = (
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
"""Schedulers of a chain of betas."""

FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")
"""Schedulers of the straight path."""

EDM = ("EDMDPMSolverMultistepScheduler", "EDMEulerScheduler")
"""Schedulers with EDM's preconditioning."""

DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
    "prediction_type": "epsilon",
    "variance_type": "fixed_small",
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "timestep_spacing": "linspace",
    "steps_offset": 0,
    "set_alpha_to_one": True,
    "final_sigmas_type": "zero",
    "solver_order": 2,
    "solver_type": "midpoint",
    "algorithm_type": "dpmsolver++",
    "lower_order_final": True,
    "euler_at_final": False,
    "predict_x0": True,
    "disable_corrector": [],
    "solver_p": None,
    "lambda_min_clipped": -float("inf"),
    "interpolation_type": "linear",
    "timestep_type": "discrete",
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "shift": 1.0,
    "use_dynamic_shifting": False,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "shift_terminal": None,
    "invert_sigmas": False,
    "stochastic_sampling": False,
    "time_shift_type": "exponential",
    "sigma_min": None,
    "sigma_max": None,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "rho": 7.0,
    "sampling_eps": 1e-5,
    "snr": 0.15,
    "correct_steps": 1,
}
_CHAIN = {"clip_sample": True, "timestep_spacing": "leading"}
_LATENT_BETAS = {"beta_start": 0.00085, "beta_end": 0.012}
_DISTILLED = {**_LATENT_BETAS, "beta_schedule": "scaled_linear", "timestep_spacing": "leading"}
_OF_CLASS: dict[str, dict[str, Any]] = {
    "LCMScheduler": _DISTILLED,
    "TCDScheduler": _DISTILLED,
    "DEISMultistepScheduler": {"algorithm_type": "deis", "solver_type": "logrho"},
    "SASolverScheduler": {"algorithm_type": "data_prediction", "variance_type": None},
    "DDIMScheduler": _CHAIN,
    "DDIMParallelScheduler": _CHAIN,
    "DDPMScheduler": _CHAIN,
    "DDPMParallelScheduler": _CHAIN,
    "PNDMScheduler": {"timestep_spacing": "leading", "set_alpha_to_one": False},
    "DPMSolverSDEScheduler": _LATENT_BETAS,
    "HeunDiscreteScheduler": _LATENT_BETAS,
    "KDPM2AncestralDiscreteScheduler": _LATENT_BETAS,
    "KDPM2DiscreteScheduler": _LATENT_BETAS,
    "DPMSolverMultistepScheduler": {"variance_type": None},
    "DPMSolverSinglestepScheduler": {"variance_type": None, "lower_order_final": False},
    "UniPCMultistepScheduler": {"variance_type": None, "solver_type": "bh2"},
    "EDMEulerScheduler": {"sigma_min": 0.002, "sigma_max": 80.0},
    "EDMDPMSolverMultistepScheduler": {"sigma_min": 0.002, "sigma_max": 80.0},
    "ScoreSdeVeScheduler": {"num_train_timesteps": 2000, "sigma_min": 0.01, "sigma_max": 1348.0},
}
_ALPHA_BAR = ("DDIM", "DDPM", "LCM", "TCD")
_SIGMAS = ("DEIS", "DPMSolver", "EulerDiscrete", "Heun", "KDPM2", "LMS", "SASolver", "UniPC")
_ONLY = {
    "clip_sample": (*_ALPHA_BAR, "Heun"),
    "final_sigmas_type": ("DPMSolverMultistep", "DPMSolverSinglestep", "EDM", "EulerDiscrete", "UniPC"),
    "interpolation_type": ("EulerDiscrete",),
    "rescale_betas_zero_snr": (*_ALPHA_BAR, "DPMSolverMultistep", "EulerAncestral", "EulerDiscrete", "UniPC"),
    "set_alpha_to_one": ("DDIM", "LCM", "PNDM", "TCD"),
    "thresholding": (*_ALPHA_BAR, "DEIS", "DPMSolverMultistep", "DPMSolverSinglestep", "EDMDPM", "SASolver", "UniPC"),
    "timestep_type": ("EulerDiscrete",),
    "use_flow_sigmas": ("DEIS", "DPMSolverMultistep", "DPMSolverSinglestep", "SASolver", "UniPC"),
    **{
        f"use_{name}_sigmas": (*_SIGMAS, "FlowMatchEuler", "FlowMatchLCM") for name in ("karras", "exponential", "beta")
    },
}
"""Entries that other classes ignore, and the beginnings of the names of the classes that have them."""


@dataclass(frozen=True, eq=False)
class SchedulerSettings:
    """Entries by name: what the file states, else the default of the class. A class ignores what others state.

    Args:
        class_name: Name of the scheduler's class.
        stated: The content of `scheduler_config.json`.
        file: Its path, for findings.
    """

    class_name: str
    stated: Mapping[str, Any]
    file: str = "scheduler_config.json"
    defaulted: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        if name in self.stated and self.class_name.startswith(_ONLY.get(name, ("",))):
            return self.stated[name]
        value = _OF_CLASS.get(self.class_name, {}).get(name, DEFAULTS[name])
        self.defaulted[name] = value
        return value

    def finding(self, name: str, value: object, *entries: str, why: str = "") -> Finding:
        """A finding on what ``entries`` give: stated if the file states one of them, else assumed.

        Args:
            name: What it is.
            value: Its value.
            *entries: Names of the entries from which it follows.
            why: Addition to the reason.
        """
        present = [entry for entry in entries if self.stated.get(entry) not in (None, False)]
        present = present or [entry for entry in entries if entry in self.stated]
        source = "stated" if present else "assumed"
        where = f"{', '.join(present)} in {self.file}" if present else f"the default of {self.class_name}"
        return Finding(name, str(value), source, f"{where}{'; ' + why if why else ''}")
