"""Why a unit is kept in float32, in the two languages of the kit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

REASONS = {  # cause -> English, Chinese; each takes the reason's figure, or that as a share
    "weights_beyond": ("{share} of its weights are beyond 65504", "权重有 {share} 超过 65504"),
    "given_beyond": ("{share} of its inputs are beyond 65504", "输入有 {share} 超过 65504"),
    "beyond": ("{share} of its results are beyond 65504", "结果有 {share} 超过 65504"),
    "largest": ("its largest result is {figure:.2g}", "结果最大为 {figure:.2g}"),
    "weights_vanished": ("{share} of its weights vanish below 2^-25", "权重有 {share} 低于 2^-25 而归零"),
    "given_vanished": ("{share} of its inputs vanish below 2^-25", "输入有 {share} 低于 2^-25 而归零"),
    "vanished": ("{share} of its results vanish below 2^-25", "结果有 {share} 低于 2^-25 而归零"),
    "bits_lost": ("its sums lose {figure:.1f} bits", "求和丢失 {figure:.1f} 位有效位"),
    "error": ("its worst channel is {figure:.2g} off", "最差通道的相对误差为 {figure:.2g}"),
    "type": ("ATC keeps its type as a whole", "ATC 按算子类型整体保留"),
}


def in_words(reasons: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The reasons of a unit, in English and in Chinese."""
    english, chinese = (
        [
            REASONS[each["cause"]][language].format(figure=each["figure"], share=f"{100 * (each['figure'] or 0):.3g}%")
            for each in reasons
        ]
        for language in (0, 1)
    )
    return "; ".join(english), "；".join(chinese)
