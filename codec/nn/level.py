"""Level normalisation: what is coded does not depend on how loud a recording is."""

import torch
from torch import Tensor, nn

from codec.nn.sequences import StreamState, windows_input

NORMAL_LEVEL = 2.0
"""Level of normalised speech, as a magnitude: peaks of speech are then near half of full scale."""


class RunningLevel(nn.Module):
    """Divides spectra by a running estimate of the speech level, so that louder copies give the same codes.

    The level of a frame is the highest short-term power up to that frame, and falls by `decay_db` a second. It is
    causal and does not depend on chunks: a stream and a whole file get the same levels. It never falls below
    `floor_db`, the level before anybody speaks.
    """

    def __init__(
        self,
        frame_rate: float,
        window_seconds: float = 0.125,
        decay_db: float = 1.0,
        floor_db: float = -50.0,
    ):
        super().__init__()
        self.window = max(1, round(window_seconds * frame_rate))  # frames over which power is averaged
        self.decay = decay_db / 10.0 / frame_rate  # log10 of power, per frame
        self.floor = floor_db / 10.0  # log10 of power

    def forward(self, magnitudes: Tensor, state: StreamState | None = None) -> Tensor:
        """(batch, frames, bands) -> the same, relative to the level."""
        return magnitudes * torch.pow(10.0, -self.levels(magnitudes, state) / 2)[..., None].to(magnitudes)

    def levels(self, magnitudes: Tensor, state: StreamState | None = None) -> Tensor:
        """(batch, frames, bands) -> the level of each frame, (batch, frames) float64, log10 of power."""
        power = magnitudes.square().sum(dim=2, keepdim=True)  # (batch, frames, 1)
        power = windows_input(power, self, state, left=self.window - 1, right=0)
        batch, frames = magnitudes.shape[:2]
        held = None if state is None else state.get(self, "level")
        if held is None:
            held = magnitudes.new_full((batch, 1), self.floor, dtype=torch.float64)
        if frames == 0:
            return held[:, :0]
        level = power[..., 0].unfold(1, self.window, 1).mean(dim=-1).clamp_min(1e-20).log10().double()
        steps = torch.arange(1, frames + 1, device=level.device, dtype=torch.float64) * self.decay
        # max over s <= t of (level_s - decay * (t - s)): a running maximum of what has been raised by the decay
        raised = torch.cat([held, level + steps], dim=1).cummax(dim=1).values[:, 1:] - steps
        levels = raised.clamp_min(self.floor)
        if state is not None:
            state.put(self, levels[:, -1:], "level")
        return levels
