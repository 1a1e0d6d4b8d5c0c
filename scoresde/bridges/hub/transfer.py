"""`push_to_hub` and `from_pretrained`: models to the Hugging Face Hub and back, as safetensors and JSON."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from scoresde._core.annotations import check_arguments
from scoresde.bridges.hub.card import model_card
from scoresde.model import ScoreModel
from scoresde.storage.checkpoint import load, read_checkpoint, save, write_checkpoint, write_text

__all__ = ["from_pretrained", "push_to_hub", "save_pretrained"]

_FILES = ("checkpoint-*/*", "calibrated.json", "calibrated-*/*", "README.md")
"""What is read from a repository; all is safetensors, JSON and Markdown."""


def save_pretrained(
    model: ScoreModel | str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    **card: Any,
) -> Path:
    """Writes a model, its calibrated samplers and its model card to a folder, for `from_pretrained`.

    Of a run the newest checkpoint is written, without the optimizer and the settings of the training.

    Args:
        model: A model, or the directory of a run.
        folder: The folder; new or empty.
        name: Name of the model; default that of the folder.
        **card: Options of `model_card`: ``bits_per_dim``, ``bits_error``, ``sampler``, ``license``, …

    Returns:
        The folder.

    Raises:
        FileNotFoundError, RuntimeError: If there is no run, or it is damaged.
        FileExistsError: If the folder is not empty.
        TypeError: If ``model`` is neither a `ScoreModel` nor a path, or an option is unknown.
    """
    check_arguments(save_pretrained, {"folder": folder, "name": name})
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"the folder must be new or empty, got {folder}; choose another one.")
    if isinstance(model, (str, os.PathLike)):
        checkpoint = read_checkpoint(model)
        loaded = load(checkpoint)
        groups = {group: checkpoint.tensors[group] for group in ("model", "ema") if group in checkpoint.tensors}
        text = model_card(loaded, name or folder.name, **{"calibrated": _calibrated(checkpoint.path.parent), **card})
        write_checkpoint(folder, groups, {"model": checkpoint.meta["model"]})
        for entry in checkpoint.path.parent.glob("calibrated*"):
            (shutil.copytree if entry.is_dir() else shutil.copyfile)(entry, folder / entry.name)
    else:
        text = model_card(model, name or folder.name, **card)
        save(model, folder)
    write_text(folder / "README.md", text)
    return folder


def push_to_hub(
    model: ScoreModel | str | os.PathLike[str],
    repo: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Model of scoresde",
    **card: Any,
) -> str:
    """Uploads a model with its model card to the Hugging Face Hub.

    Args:
        model: A model, or the directory of a run.
        repo: Repository, ``"user/name"``; created if it does not exist.
        private: Whether a new repository is private; None: as your account has it.
        token: Of the Hub; default the one that ``hf auth login`` stored.
        commit_message: Of the upload.
        **card: Options of `model_card`.

    Returns:
        The address of the upload.

    Raises:
        ImportError: If huggingface_hub is not installed.
        TypeError, FileNotFoundError, RuntimeError: See `save_pretrained`.
    """
    check_arguments(push_to_hub, {"repo": repo, "private": private, "token": token, "commit_message": commit_message})
    hub = _hub()
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_pretrained(
            model, Path(temporary) / "model", **{"name": repo.split("/")[-1], "repo": repo, **card}
        )
        api = hub.HfApi(token=token)
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=commit_message, ignore_patterns=[".*", "**/.*"]
        )
    return str(getattr(commit, "commit_url", commit))


def from_pretrained(
    repo_or_folder: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | None = None,
    local_files_only: bool = False,
    net: nn.Module | None = None,
    raw: bool = False,
) -> ScoreModel:
    """The model of a folder, or of a repository of the Hugging Face Hub, which is downloaded.

    Only safetensors, JSON and Markdown are downloaded, and no code is executed.

    Args:
        repo_or_folder: A folder that `save_pretrained` wrote, or a run; otherwise a repository, ``"user/name"``.
        revision: Branch, tag or commit of the repository.
        token: Of the Hub, for private repositories.
        local_files_only: Whether to take a repository from the cache only.
        net: See `scoresde.load`.
        raw: Whether to load the raw weights instead of the averaged ones.

    Raises:
        ImportError: If a repository is asked for, and huggingface_hub is not installed.
        FileNotFoundError: If there is neither a folder nor a checkpoint in it.
        RuntimeError, ValueError: See `scoresde.load`.
    """
    check_arguments(from_pretrained, locals())
    path = Path(repo_or_folder)
    if not path.exists():
        name = os.fspath(repo_or_folder)
        if path.is_absolute() or name.count("/") > 1 or "\\" in name or name.startswith((".", "~")):
            raise FileNotFoundError(
                f"there must be a folder {name!r}, which does not exist; a repository is user/name."
            )
        path = _downloaded(name, revision=revision, token=token, local_files_only=local_files_only)
    return load(path, net=net, raw=raw)


def _downloaded(name: str, **options: Any) -> Path:
    """The folder of a repository in the cache."""
    hub = _hub()
    try:
        ignored = ["*.py", "*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt"]
        return Path(hub.snapshot_download(name, allow_patterns=list(_FILES), ignore_patterns=ignored, **options))
    except (OSError, ValueError) as error:  # what huggingface_hub raises for absent, private or ill-named ones
        raise FileNotFoundError(
            f"{name!r} must be a folder or a repository of the Hub: no such folder exists here, and the repository was "
            f"not read ({type(error).__name__}: {str(error).partition(chr(10))[0]}). Check the path, the name or the "
            "token."
        ) from error


def _calibrated(run: Path) -> list[str]:
    """The samplers of which a run has fitted versions, as text."""
    file = run / "calibrated.json"
    if not file.exists():
        return []
    entries = json.loads(file.read_text(encoding="utf-8"))
    return sorted({entry["sampler"] for entry in entries.get("calibrations", [])})


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError("the Hub needs huggingface_hub: pip install 'scoresde[hub]'.") from error
    return huggingface_hub
