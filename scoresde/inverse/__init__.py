"""Inverse problems, editing and imputation: what needs an observation and a sampler."""

from __future__ import annotations
