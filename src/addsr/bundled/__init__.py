"""The models inside the package: a folder each, in the layout of AddSRPipeline.save_pretrained, with a MODEL_CARD.md."""

from pathlib import Path

HERE = Path(__file__).resolve().parent


def bundled_models() -> dict[str, Path]:
    """Name -> folder."""
    return {folder.name: folder for folder in sorted(HERE.iterdir()) if (folder / "model_index.json").is_file()}
