"""ATC's flags of a build with another precision mode."""

from __future__ import annotations

import pytest

from deploy.pipeline.build import with_mode


@pytest.mark.parametrize(
    ("flags", "mode", "found"),
    [
        ({"log": "info", "precision_mode": "force_fp16"}, "fp16", {"log": "info", "precision_mode_v2": "fp16"}),
        (
            {"precision_mode_v2": "fp16", "keep_dtype": "f"},
            "force_fp16",
            {"precision_mode": "force_fp16", "keep_dtype": "f"},
        ),
        (
            {"precision_mode": "allow_mix_precision", "modify_mixlist": "f"},
            "force_fp16",
            {"precision_mode": "force_fp16"},
        ),
        (
            {"precision_mode": "allow_mix_precision", "modify_mixlist": "f"},
            "mixed_float16",
            {"precision_mode_v2": "mixed_float16", "modify_mixlist": "f"},
        ),
        ({"precision_mode": "force_fp16"}, "cube_fp16in_fp32out", {"precision_mode": "cube_fp16in_fp32out"}),
        ({"precision_mode_v2": "fp16"}, "cube_fp16in_fp32out", {"precision_mode_v2": "cube_fp16in_fp32out"}),
        ({}, "force_fp16", {"precision_mode": "force_fp16"}),
    ],
)
def test_a_mode_has_its_own_flag_and_no_list_that_atc_refuses_beside_it(
    flags: dict[str, str], mode: str, found: dict[str, str]
) -> None:
    assert list(with_mode(flags, mode).items()) == list(found.items())
