"""How much a codec's codes change when its recordings are shifted, turned down, made noisy or resampled."""

from collections.abc import Callable

from torch import Tensor

from codec.metrics import CodeStability, StabilityShare, perturbations


class StabilityTrial:
    """Codes changed versions of recordings and counts what remains of the codes.

    Args:
        sampling_rate, hop_length, num_quantizers: of the codec.
    """

    def __init__(self, sampling_rate: int, hop_length: int, num_quantizers: int):
        self._perturbations = perturbations(sampling_rate, hop_length)
        self._counts = [CodeStability(num_quantizers) for _ in self._perturbations]
        self.utterances = 0

    def update(
        self, encode: Callable[[Tensor], Tensor], waveform: Tensor, codes: Tensor, identity: str
    ) -> None:
        """Try all on one recording (samples,), whose codes (num_quantizers, frames) are known."""
        self.utterances += 1
        for perturbation, count in zip(self._perturbations, self._counts, strict=True):
            changed = perturbation.apply(waveform, identity)
            if len(changed):  # of a recording below a frame a shift may leave nothing
                count.update(codes, encode(changed), align=perturbation.shifts)

    @property
    def shares(self) -> dict[str, StabilityShare]:
        """By perturbation; empty where nothing was tried."""
        if not self.utterances:
            return {}
        return {
            perturbation.name: count.share()
            for perturbation, count in zip(self._perturbations, self._counts, strict=True)
        }
