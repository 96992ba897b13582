from dataclasses import dataclass

import numpy as np
import pytest

from codec import CodecInfo
from codec.foundation import UserError
from slm.models.warm_start import map_codes
from tests.slm.token_rows import codec_info


@dataclass
class Coded:
    ids: list[str]
    streams: list[np.ndarray]
    info: CodecInfo
    name: str = "coded"

    def __len__(self):
        return len(self.ids)

    def id(self, index):
        return self.ids[index]

    def codes(self, index):
        return self.streams[index]


def test_codes_that_were_renamed_are_found_again():
    random = np.random.default_rng(0)
    names = random.permutation(16).astype(np.uint16)
    streams = [random.integers(0, 16, 400).astype(np.uint16) for _ in range(6)]
    old = Coded([f"r{i}" for i in range(6)], streams, codec_info((16,)))
    new = Coded(
        ["r5", "r0", "not there", "r3"],
        [names[streams[5]], names[streams[0]][:-1], streams[1], names[streams[3]]],
        codec_info((16,)),
    )
    mapped = map_codes(old, new)
    assert mapped.recordings == 3 and mapped.frames == 1199
    np.testing.assert_allclose(mapped.shares.sum(1), 1.0, rtol=1e-5)
    assert (mapped.shares.argmax(1)[names] == np.arange(16)).all()
    assert mapped.bits == pytest.approx(4.0, abs=0.1)  # a code tells which of 16 equally frequent ones it was


def test_a_code_that_was_never_seen_is_like_the_usual_one():
    stream = np.array([0, 0, 0, 1], dtype=np.uint16)
    old, new = Coded(["a"], [stream], codec_info((4,))), Coded(["a"], [stream + 1], codec_info((4,)))
    shares = map_codes(old, new).shares
    np.testing.assert_allclose(shares[3], [0.75, 0.25, 0, 0])
    assert shares[1, 0] == pytest.approx((3 + 0.75) / 4)


def test_codings_that_do_not_go_together_are_refused():
    stream = np.zeros(10, dtype=np.uint16)
    old = Coded(["a"], [stream], codec_info((4,)))
    with pytest.raises(UserError, match="no recording in common"):
        map_codes(old, Coded(["b"], [stream], codec_info((4,))))
    with pytest.raises(UserError, match=r"10 frames in .* and 12 in"):
        map_codes(old, Coded(["a"], [np.zeros(12, dtype=np.uint16)], codec_info((4,))))
    with pytest.raises(UserError, match="one quantizer"):
        map_codes(old, Coded(["a"], [stream], codec_info((4, 4))))
