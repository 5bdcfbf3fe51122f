"""Profiles side by side, as a table for the terminal."""

from collections.abc import Sequence

from rich.table import Table

from addsr.evaluation.profile import Profile


def table(profiles: Sequence[Profile]) -> Table:
    """A column for each model."""
    columns = [f"{one.name}, {one.steps} step{'s' * (one.steps > 1)}, {one.size}²" for one in profiles]
    result = Table("", *columns, box=None, pad_edge=False)
    components = list(dict.fromkeys(part for one in profiles for part in one.parameters))
    for part in components:
        result.add_row(part, *(_millions(one.parameters.get(part)) for one in profiles))
    result.add_row("parameters", *(_millions(sum(one.parameters.values())) for one in profiles), style="bold")
    result.add_section()
    for stage in dict.fromkeys(stage for one in profiles for stage in one.stages):
        result.add_row(f"{stage}", *(_stage(one, stage) for one in profiles))
    result.add_row("multiply-accumulates", *(_giga(one.macs) for one in profiles), style="bold")
    result.add_row("products of attention", *(_giga(one.attention_macs) for one in profiles))
    if all(one.seconds is not None for one in profiles):
        result.add_row("seconds", *(f"{one.seconds:.3g}" for one in profiles), style="bold")
    precision = " and ".join(dict.fromkeys(one.precision for one in profiles))
    result.add_row(f"memory, {precision}", *(f"{one.peak_bytes / 1e9:.2f} GB" for one in profiles), style="bold")
    return result


def _millions(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.2f} M"


def _giga(macs: int) -> str:
    return f"{macs / 1e9:,.1f} G"


def _stage(one: Profile, name: str) -> str:
    if name not in one.stages:
        return ""
    stage = one.stages[name]
    seconds = "" if stage.seconds is None else f", {stage.seconds:.3g} s"
    runs = f"{stage.runs} × " if stage.runs > 1 else ""
    return f"{runs}{_giga(stage.macs)}{seconds}"
