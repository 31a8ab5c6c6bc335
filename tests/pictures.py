"""Pictures for tests, made by the codecs themselves."""

from fractions import Fraction

import av
import numpy as np


def picture(width: int = 640, height: int = 480, codec: str = "mjpeg", *, noise: bool = False) -> bytes:
    """A JPEG (`mjpeg`) or `png` file with a grey wedge, or with noise that does not compress."""
    if noise:
        pixels = np.random.default_rng(3).integers(0, 255, (height, width, 3), dtype=np.uint8)
    else:
        wedge = np.linspace(0, 255, width, dtype=np.uint8)
        pixels = np.repeat(np.repeat(wedge[None, :, None], height, axis=0), 3, axis=2)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height = width, height
    encoder.pix_fmt = "yuvj420p" if codec == "mjpeg" else "rgb24"
    encoder.time_base = Fraction(1, 25)
    ready = frame.reformat(format=encoder.pix_fmt)
    ready.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(ready), *encoder.encode(None)])
