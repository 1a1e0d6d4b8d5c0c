"""How each number of the report comes about: in words, the function that computes it, and its place in the results."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFINITIONS", "Definition"]


@dataclass(frozen=True)
class Definition:
    """The definition of a number.

    Attributes:
        name: Of the number.
        text: What it is. ``{events}`` stands for the plural of an event, ``{event}`` for one, ``{n}`` for their number.
        computed: The function that computes it.
        stored: Where it is in ``results.json``, or in the folder of a run.
    """

    name: str
    text: str
    computed: str
    stored: str


_RUN, _SAMPLES, _TABLE = "runs[…].", "runs[…].samples[…].", "runs[…].samples[…].table."

DEFINITIONS: dict[str, Definition] = {
    "difference": Definition(
        "difference with its interval",
        "A paired difference to the first entry of the plan, which was fixed before any result was known. The "
        "intervals hold jointly with 95 % probability: Student’s t with Bonferroni’s correction for the number of "
        "comparisons. With one training seed a difference of likelihoods is averaged over the same held-out {events}; "
        "its interval speaks of these two trained networks, not of other trainings. A difference of distances then has "
        "√2 times the standard error of one set of real data. With several seeds both intervals are over seeds; two "
        "seeds give very wide ones.",
        "scoresde.experiments.differences",
        "differences.likelihood, differences.samples",
    ),
    "likelihood": Definition(
        "likelihood",
        "Of held-out {events}: by the probability-flow ODE, and for categories by a bound in continuous time. ± is the "
        "standard error over the {events}; with several training seeds it is the standard deviation over seeds.",
        "scoresde.evaluation.evaluate",
        _RUN + "likelihood.value",
    ),
    "held-out": Definition(
        "error over held-out data",
        "Standard error of the mean over the held-out {events}.",
        "scoresde.evaluation.evaluate",
        _RUN + "likelihood.stderr",
    ),
    "probes": Definition(
        "error over probes",
        "Standard error of the mean from the random trace estimates of the divergence, 0 for an exact trace; of a "
        "bound from its draws of noise and timesteps.",
        "scoresde.likelihood.log_prob",
        _RUN + "likelihood.probe_stderr",
    ),
    "events": Definition(
        "scored events", "Number of held-out {events} in the mean.", "scoresde.evaluation.evaluate", "likelihood.events"
    ),
    "nfe": Definition(
        "network calls",
        "Evaluations of the network per sample, or per scored {event}; for an adaptive solver the largest number.",
        "scoresde.sampling.sample",
        "nfe",
    ),
    "train": Definition(
        "training seconds",
        "Wall-clock time of the training, with the time before an interruption.",
        "scoresde.training.train",
        _RUN + "train_seconds",
    ),
    "bound": Definition(
        "bound",
        "A variational bound on the likelihood of the same held-out {events}, under the stochastic reverse process.",
        "scoresde.evaluation.evaluate",
        _RUN + "bounds[…].value",
    ),
    "draws": Definition(
        "error over draws",
        "Standard error from the draws of noise, timesteps, dequantization and probes.",
        "scoresde.evaluation.evaluate",
        _RUN + "bounds[…].draw_stderr",
    ),
    "over-ode": Definition(
        "minus the ODE",
        "The bound minus the ODE’s likelihood, event by event. ± is the standard error of that difference with its "
        "draws; with several training seeds the standard deviation over seeds.",
        "scoresde.evaluation.evaluate",
        _RUN + "bounds[…].over_ode",
    ),
    "seconds": Definition(
        "seconds of sampling",
        "Wall-clock time for all {n} samples.",
        "scoresde.sampling.sample",
        _SAMPLES + "seconds",
    ),
    "calibration": Definition(
        "calibration",
        "A calibrated sampler is fitted to the trained model, once per model. Its error is the distance of its samples "
        "to exact solutions from held-out noises, over that of the same sampler before calibration.",
        "scoresde.sampling.calibrate",
        _SAMPLES + "calibration",
    ),
    "sw": Definition(
        "sliced Wasserstein distance",
        "Root mean square, over 512 random directions, of the transport distance between {n} samples and {n} held-out "
        "{events}, in model units, with categories as indicators of their classes. ± is the standard error over "
        "directions; with several seeds over seeds.",
        "scoresde.metrics.sliced_wasserstein",
        _SAMPLES + "sliced_wasserstein",
    ),
    "ratio": Definition(
        "× floor",
        "The sliced Wasserstein distance over its floor: the mean distance of 20 sets of {n} training {events} to the "
        "same held-out {events}. ± is the standard deviation of one such set, over the floor.",
        "scoresde.evaluation.SampleDistances",
        _SAMPLES + "ratio",
    ),
    "mmd": Definition(
        "kernel distance",
        "Unbiased squared MMD with two Gaussian kernels. It is 0 on average for equal distributions, so it can be "
        "negative.",
        "scoresde.metrics.mmd",
        _SAMPLES + "mmd",
    ),
    "classifier": Definition(
        "classifier accuracy",
        "Of a classifier that separates samples from held-out {events}, cross-validated: 50 % is chance.",
        "scoresde.metrics.classifier_two_sample",
        _SAMPLES + "classifier",
    ),
    "copies": Definition(
        "nearest training event, too near",
        "The median distance of samples to the nearest training {event} over that of held-out {events}: well below 1, "
        "samples would be copies. About 1 % are “too near” by chance.",
        "scoresde.metrics.copies",
        _SAMPLES + "copies",
    ),
    "auc": Definition(
        "classifier AUC",
        "Of a gradient-boosted classifier of samples and held-out rows: the probability that it is right about a pair. "
        "0.5 is chance, 1 is certainty.",
        "scoresde.metrics.classifier_auc",
        _TABLE + "auc",
    ),
    "within": Definition(
        "columns within 1.5 × floor",
        "Share of the columns whose distance is at most 1.5 times that of as many training rows.",
        "scoresde.evaluation.TableScores",
        _TABLE + "within",
    ),
    "association": Definition(
        "difference of dependence",
        "Absolute difference of the pairwise dependence of the columns. Numbers: Spearman’s rank correlation. A number "
        "and a category: correlation ratio. Two categories: Cramér’s V.",
        "scoresde.metrics.association_matrix",
        _TABLE + "association",
    ),
    "repeated": Definition(
        "copied rows",
        "Share of the samples that equal a training row, and of those that are nearer to a training row than to any of "
        "as many held-out rows: 50 % without copies. Real rows may repeat, so only more repeats than in the first line "
        "are copies.",
        "scoresde.metrics.copied_rows",
        _TABLE + "copies",
    ),
    "column": Definition(
        "distance of a column",
        "Numbers and dates: Wasserstein distance in standard deviations. Categories: total variation, the share of "
        "rows that would have to change. The floor is the median of 20 draws of as many training rows.",
        "scoresde.metrics.column_distances",
        _TABLE + "distances",
    ),
    "noise": Definition(
        "error by noise level",
        "Squared error of the noise estimate per value, of a category its cross-entropy in nats, at fixed log-SNRs, "
        "with the same noise for every model.",
        "scoresde.evaluation.error_by_noise",
        _RUN + "error_by_noise",
    ),
    "weight": Definition(
        "weight of a noise level",
        "The weighting as a density over log-SNR, its largest value set to 1.",
        "scoresde.evaluation.canonical_weights",
        "weights",
    ),
    "loss": Definition(
        "training loss",
        "Mean of the weighted loss per value over the updates since the point before. Losses of two weightings have "
        "different units.",
        "scoresde.training.train",
        _RUN + "history",
    ),
    "monitor": Definition(
        "held-out loss by log-SNR",
        "Squared error of the noise estimate per value on held-out {events}, at fixed log-SNRs and with the same noise "
        "in each look.",
        "scoresde.training.loss_by_log_snr",
        "loss_by_log_snr.jsonl",
    ),
    "pace": Definition(
        "pace",
        "Updates since this process began to train, per second, and the remaining updates at that pace.",
        "scoresde.training.train",
        "metrics.jsonl",
    ),
    "time": Definition(
        "time",
        "Wall-clock time of everything on this page.",
        "scoresde.experiments.compare",
        "seconds",
    ),
}
"""By the name that links use."""
