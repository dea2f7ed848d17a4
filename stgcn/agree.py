"""Whether two exports of one checkpoint, by different sources, are one network:

python -m stgcn.agree --onnx st_gcn.onnx --other st_gcn.mmskeleton.onnx --output agreement.json [--model NAME]
"""

from __future__ import annotations

import json
from typing import Callable, List, Optional, Tuple

import numpy as np

from stgcn.cards import INPUT, KINETICS, OUTPUT, Card, card_of, program
from stgcn.errors import InputError, run_main, sentence
from stgcn.files import PathLike, write_whole
from stgcn.onnx_model import TOLERANCE, ends, limit_memory, load, network_ends, session

BATCH_SIZES = (1, 3)


def write_agreement(onnx: PathLike, other: PathLike, output: PathLike, card: Card = KINETICS) -> None:
    """Run both models on seeded random clips and write how far their logits lie apart.

    Raises InputError for a file that is no such model, or logits further apart than TOLERANCE (of the largest logit, or
    of 1 where logits are small).
    """
    (shape, run), (_, run_other) = (_network(path, card) for path in (onnx, other))
    random = np.random.RandomState(1)
    apart = largest = 0.0
    for batch_size in BATCH_SIZES:
        clips = random.uniform(-0.5, 0.5, size=(batch_size, *shape)).astype(np.float32)
        logits, others = run(clips), run_other(clips)
        apart = max(apart, float(np.abs(logits - others).max()))
        largest = max(largest, float(np.abs(others).max()))
    agreed = apart <= TOLERANCE * max(1.0, largest)
    told = f"{onnx} and {other}: logits at most {apart:.1e} apart (tolerance {TOLERANCE:.0e})"
    print(sentence(f"{'✓' if agreed else '✗'} {told}"))
    if not agreed:
        raise InputError(
            f"the logits of {onnx} and {other} differ by {apart:.1e}, more than {TOLERANCE:.0e}: "
            "they aren't the same network, so neither may go on"
        )
    report = {"max_abs_error": apart, "largest_logit": largest, "tolerance": TOLERANCE, "batch_sizes": BATCH_SIZES}
    write_whole(output, (json.dumps(report, indent=1) + "\n").encode())


def _network(path: PathLike, card: Card) -> Tuple[Tuple[int, ...], Callable[[np.ndarray], np.ndarray]]:
    """The shape of a model's samples, and what gives its logits for a batch of them."""
    try:
        import onnxruntime  # noqa: F401

        model = load(path)
        shapes = map(card.shape, card.persons)
        shape = next((shape for shape in shapes if ends(model) == network_ends(shape, card)), None)
        if shape is None:
            found = ", ".join(f"{name} {dims}" for name, dims in ends(model))
            raise InputError(f"{path} takes and gives {found}, which isn't {card.name}: export it again")
        running = session(model)
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"the comparison needs onnxruntime ({error}): install it") from error
    except Exception as error:  # onnxruntime's own errors have no common base
        raise InputError(f"{path} isn't a model that ONNX Runtime loads: export it again") from error

    def run(samples: np.ndarray) -> np.ndarray:
        try:
            logits: np.ndarray = running.run([OUTPUT], {INPUT: samples})[0]
        except Exception as error:
            raise InputError(f"{path} can't be run ({error}): export it again") from error
        if logits.shape != (len(samples), card.classes) or not np.isfinite(logits).all():
            raise InputError(f"{path} doesn't give {card.classes} finite logits per row: export it again")
        return logits

    return shape, run


def main(argv: Optional[List[str]] = None) -> None:
    """Compare the logits of two exported models."""
    parser = program("agree", main.__doc__)
    parser.add_argument("--onnx", required=True, help="the one model")
    parser.add_argument("--other", required=True, help="the other")
    parser.add_argument("--output", required=True, help="JSON file to write")
    options = parser.parse_args(argv)
    limit_memory()
    write_agreement(options.onnx, options.other, options.output, card_of(options.model))


if __name__ == "__main__":
    run_main(main)
