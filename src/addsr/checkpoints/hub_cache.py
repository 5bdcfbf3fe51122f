"""The Hugging Face hub's local cache, read without asking the hub or its notion of a complete download."""

from pathlib import Path


def cached_snapshot(repository: str) -> Path | None:
    """The folder of a repository `owner/name` in the local cache, whole or in part; None where it has none."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    parts = repository.split("/")
    if len(parts) != 2 or not all(parts) or ".." in parts:
        return None
    root = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")
    try:
        commit = (root / "refs" / "main").read_text(encoding="utf-8").strip()
        snapshot = root / "snapshots" / commit
        return snapshot if commit and snapshot.is_dir() else None
    except (OSError, ValueError):
        return None


def local_folder(source: str | Path) -> Path:
    """The folder that a path or a repository in the local cache stands for; the path itself where there is neither."""
    path = Path(source)
    return path if path.exists() else cached_snapshot(str(source)) or path
