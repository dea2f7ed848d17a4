from __future__ import annotations

import json
from typing import Any

import pytest

from deploy.errors import KitError
from deploy.npu.results import match_results, only_output, summary_places

FOLDER = "out/bs4"
SAMPLES = ["0", "1", "2", "10"]
FILLERS = {"filler0"}


def entry(stem: str, outfile: str, folder: str = FOLDER) -> dict[str, Any]:
    return {"infiles": [f"/in/{stem}.bin"], "outfiles": [f"{folder}/{outfile}"]}


def whole(*names: str) -> dict[str, int]:
    return dict.fromkeys(names, 1600)


# Since 2022-07: named after the input.
NEW = whole("0_0.bin", "1_0.bin", "2_0.bin", "10_0.bin", "filler0_0.bin")
NEW_SUMMARY = {"filesinfo": {str(i): entry(s, f"{s}_0.bin") for i, s in enumerate([*SAMPLES, "filler0"])}}
# Before: numbered in the tool's order, which was that of strings; the summary lies inside.
OLD = whole(*(f"sample_id_{i}_output_0.bin" for i in range(5))) | {"sumary.json": 4711}
OLD_SUMMARY = {
    "filesinfo": {
        str(i): entry(s, f"sample_id_{i}_output_0.bin") for i, s in enumerate(["0", "1", "10", "2", "filler0"])
    }
}


def match(listing: dict[str, int], summary: dict[str, Any] | None = None) -> list[str]:
    return match_results(listing, summary, SAMPLES, FILLERS, FOLDER, 1600)


def test_summary_places_cover_the_eras() -> None:
    places = ["bs4_summary.json", "bs4/_summary.json", "bs4/sumary.json"]
    assert summary_places("bs4") == summary_places("bs4/") == places


@pytest.mark.parametrize(
    ("listing", "summary", "matched"),
    [
        pytest.param(NEW, NEW_SUMMARY, ["0_0.bin", "1_0.bin", "2_0.bin", "10_0.bin"], id="summary"),
        pytest.param(
            NEW | {"_summary.json": 1}, NEW_SUMMARY, ["0_0.bin", "1_0.bin", "2_0.bin", "10_0.bin"], id="inside"
        ),
        pytest.param(
            OLD,
            OLD_SUMMARY,
            [f"sample_id_{i}_output_0.bin" for i in (0, 1, 3, 2)],
            id="2022-06, whose names say nothing",
        ),
        pytest.param(NEW, None, ["0_0.bin", "1_0.bin", "2_0.bin", "10_0.bin"], id="names"),
        pytest.param(NEW, {"filesinfo": {}}, ["0_0.bin", "1_0.bin", "2_0.bin", "10_0.bin"], id="empty summary"),
        pytest.param(
            whole("0_1.bin", "1_1.bin", "2_1.bin", "10_1.bin", "filler0_1.bin"),
            None,
            ["0_1.bin", "1_1.bin", "2_1.bin", "10_1.bin"],
            id="the guide's earlier era",
        ),
        pytest.param(
            {k: v for k, v in NEW.items() if k != "filler0_0.bin"}, None, [*list(NEW)[:4]], id="no filler's result"
        ),
        pytest.param(
            NEW,
            {"filesinfo": {i: {**e, "infiles": e["infiles"][0]} for i, e in NEW_SUMMARY["filesinfo"].items()}},
            list(NEW)[:4],
            id="infiles as text",
        ),
    ],
)
def test_results_are_matched_to_samples(listing: dict[str, int], summary: dict[str, Any], matched: list[str]) -> None:
    assert match(listing, summary) == matched
    if summary:
        assert match(listing, json.loads(json.dumps(summary))) == matched


def test_absolute_and_unnormalised_paths_are_the_same_folder() -> None:
    summary = {"filesinfo": {"0": entry("0", "0_0.bin", "/w/./out//bs4")}}
    assert match_results(whole("0_0.bin"), summary, ["0"], set(), "/w/out/bs4/", 1600) == ["0_0.bin"]


def without(name: str) -> dict[str, int]:
    return {k: v for k, v in NEW.items() if k != name}


def changed(index: str, new: Any) -> dict[str, Any]:
    return {"filesinfo": {**NEW_SUMMARY["filesinfo"], index: new}}


@pytest.mark.parametrize("summary", [None, NEW_SUMMARY], ids=["names", "summary"])
@pytest.mark.parametrize(
    ("listing", "says"),
    [
        pytest.param(without("2_0.bin"), r"sample 2 has no result, in out/bs4", id="missing"),
        pytest.param({}, r"sample 0 has no result, and 3 more of 4 have none", id="none"),
        pytest.param(NEW | whole("77_0.bin"), r"77_0\.bin belongs to no sample", id="stale"),
        pytest.param(NEW | whole("core"), r"core belongs to no sample", id="strange"),
        pytest.param(NEW | whole("1_1.bin"), r"1_1\.bin belongs to no sample", id="second output"),
        pytest.param(NEW | {"1_0.bin": 800}, r"sample 1 \(800 bytes in 1_0\.bin, not 1600\)", id="short"),
        pytest.param(NEW | {"10_0.bin": 6400}, r"sample 10 \(6400 bytes", id="long"),
        pytest.param(NEW | {"0_0.bin": 0, "2_0.bin": 0}, r"sample 0 .*1 more have", id="empty"),
    ],
)
def test_results_that_do_not_fit_are_named(listing: dict[str, int], summary: dict[str, Any] | None, says: str) -> None:
    with pytest.raises(KitError, match=says):
        match(listing, summary)


@pytest.mark.parametrize(
    ("summary", "says"),
    [
        pytest.param(changed("1", entry("1", "1_0.bin", "/elsewhere")), "is not in out/bs4", id="outside"),
        pytest.param(changed("1", entry("1", "../1_0.bin")), "is not in out/bs4", id="climbing out"),
        pytest.param(
            changed("1", {"infiles": ["/in/1.bin"], "outfiles": []}), "sample 1 has no result", id="not written"
        ),
        pytest.param(
            changed("9", entry("1", "1_0.bin")), "sample 1 has not exactly one result of its own", id="named twice"
        ),
        pytest.param(changed("9", entry("9", "9_0.bin")), r"9_0\.bin belongs to no sample", id="unknown sample"),
        pytest.param(changed("9", None), "cannot read", id="null"),
        pytest.param(changed("9", {"infiles": ["a", "b"]}), "cannot read", id="two inputs"),
        pytest.param({"filesinfo": ["0_0.bin"]}, "cannot read", id="a list"),
    ],
)
def test_a_summary_that_lies_is_refused(summary: dict[str, Any], says: str) -> None:
    with pytest.raises(KitError, match=says):
        match(NEW, summary)


def test_two_samples_do_not_share_a_result() -> None:
    with pytest.raises(KitError, match=r"sample 0 .*\b1 more"):
        match(without("1_0.bin"), changed("1", entry("1", "0_0.bin")))


def test_the_full_set_is_matched_in_linear_time() -> None:
    stems = [str(i) for i in range(19796)]
    listing = whole(*(f"{stem}_0.bin" for stem in stems))
    assert match_results(listing, None, stems, set(), FOLDER, 1600) == list(listing)


@pytest.mark.parametrize("summarised", [True, False])
def test_each_of_two_outputs_is_matched_alone(summarised: bool) -> None:
    listing = {"0_0.bin": 8, "0_1.bin": 4, "1_0.bin": 8, "1_1.bin": 4}
    entry = {
        str(i): {
            "infiles": [f"/w/in/{i}.bin", f"/w/mask/{i}.bin"],
            "outfiles": [f"{FOLDER}/{i}_{k}.bin" for k in (0, 1)],
        }
        for i in (0, 1)
    }
    summary = {"filesinfo": entry} if summarised else None
    for output, size in ((0, 8), (1, 4)):
        own = only_output(listing, summary, output)
        assert match_results(*own, ["0", "1"], set(), FOLDER, size) == [f"0_{output}.bin", f"1_{output}.bin"]
