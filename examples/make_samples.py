"""How the sample photos here were made: public-domain pictures inside the scikit-image package, degraded.

Run as `python examples/make_samples.py` with scikit-image installed; the results are committed.
"""

from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from addsr.data.degradation import DegradationSettings, from_uint8, to_uint8, two_order

HERE = Path(__file__).resolve().parent
SAMPLES = {"astronaut": (0, 0, 512, 512, 4), "coffee": (0, 40, 400, 520, 9), "cat": (0, 0, 300, 448, 9)}


def main() -> None:
    """Write NAME.jpg for each sample: a quarter of the size, blurred, noisy, compressed."""
    for name, (top, left, height, width, seed) in SAMPLES.items():
        photo = skimage.data.chelsea() if name == "cat" else getattr(skimage.data, name)()
        photo = photo[top : top + height, left : left + width]
        lr = two_order(from_uint8(photo), DegradationSettings(), np.random.default_rng(seed))
        Image.fromarray(to_uint8(lr)).save(HERE / f"{name}.jpg", quality=92, subsampling=0)


if __name__ == "__main__":
    main()
