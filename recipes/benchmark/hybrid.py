"""HybridCodec's encoder, beside what it does without: its teacher at inference, and `transformers`' DAC.

The paper (arXiv 2606.06743) reports three times the speed of DualCodec, in which w2v-BERT 2.0 is a part of the encoder,
and a real-time factor of 0.014, on an A6000.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torchaudio
from torch import Tensor, nn

from codec.hybrid_codec.configuration import DACEncoderConfig
from codec.losses.semantic import TEACHER_RATE
from codec.nn.kaldi_filterbank import stacked_filterbank
from recipes.benchmark.contestants import speech_like
from recipes.benchmark.timing import Case, Timing, take_turns

if TYPE_CHECKING:
    from transformers import Wav2Vec2BertModel

    from codec.hybrid_codec import HybridCodecModel

_PRESET = "hybrid-codec"
_TEACHER_LAYER = 16  # hidden state that the semantic stream is taught by
_SEED = 0
PAPER_RATIO = 3.0
PAPER_NOTE = "the paper: 3 × beside DualCodec, real-time factor 0.014, on an A6000"
OURS, WITH_TEACHER, WAVEFORM, DAC = (
    "hybrid-codec",
    "with w2v-BERT 2.0",
    "waveform encoder",
    "DacModel's encoder",
)


@dataclass(frozen=True)
class HybridTiming:
    """`hybrid-codec` on `seconds` of audio, batch 1, float32."""

    seconds: float
    encode: Timing  # waveform to codes
    with_teacher: Timing  # the same with w2v-BERT 2.0 in the semantic encoder's place
    waveform_encoder: Timing  # waveform to latent
    dac_encoder: Timing  # the same by `transformers`, at the same widths and strides

    @property
    def over_teacher(self) -> float:
        """How many times as fast as with the teacher inside: the median over rounds."""
        return self.encode.faster_round_by_round(self.with_teacher)

    @property
    def over_dac(self) -> float:
        """How many times as fast as DacModel's encoder: the median over rounds."""
        return self.waveform_encoder.faster_round_by_round(self.dac_encoder)

    @property
    def real_time_factor(self) -> float:
        """Seconds of computing a second of audio, to encode: the median round."""
        return self.encode.median / self.seconds


class TaughtEncoder(nn.Module):
    """A HybridCodec's encoder whose semantic stream hears w2v-BERT 2.0, as in DualCodec (arXiv 2505.13000).

    The teacher's features, two of 50 a second averaged for a frame, go straight to the semantic quantizer: where the
    teacher is, the ConvNeXt blocks before it are not. Everything else is the codec's own.
    """

    def __init__(self, codec: "HybridCodecModel", teacher: "Wav2Vec2BertModel") -> None:
        super().__init__()
        self.codec, self.teacher = codec, teacher

    def forward(self, audio: Tensor) -> Tensor:
        """(1, 1, samples in whole hops) at the codec's rate -> codes (1, num_quantizers, frames)."""
        latent = self.codec.encoder(audio[:, 0])  # (1, frames, dim)
        quantizer = self.codec.quantizer
        semantic = quantizer.semantic
        heard = self.features(audio[:, 0], latent.shape[1])
        codes = semantic.quantizer.encode(semantic.proj_in(heard))
        left = latent - semantic.decode(codes)
        acoustic = quantizer.acoustic.encode(left, self.codec.config.num_quantizers - 1)
        return torch.cat([codes[:, None], acoustic], dim=1)

    def features(self, waveform: Tensor, frames: int) -> Tensor:
        """(1, samples) -> (1, frames, dim) of the teacher."""
        heard = torchaudio.functional.resample(waveform, self.codec.config.sampling_rate, TEACHER_RATE)
        lengths = torch.full((1,), heard.shape[1], device=heard.device)
        bands, mask = stacked_filterbank(heard, lengths)
        hidden = self.teacher(input_features=bands, attention_mask=mask).last_hidden_state
        return nn.functional.adaptive_avg_pool1d(hidden.mT, frames).mT


def published_teacher() -> "Wav2Vec2BertModel":
    """w2v-BERT 2.0 at its published size, with random weights, up to hidden state 16: the first 16 of 24 layers."""
    from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel

    return Wav2Vec2BertModel(Wav2Vec2BertConfig(num_hidden_layers=_TEACHER_LAYER)).eval()


def dac_encoder(config: DACEncoderConfig) -> nn.Module:
    """`transformers`' encoder at the widths and strides of ours, with random weights."""
    from transformers import DacConfig, DacModel

    theirs = DacConfig(encoder_hidden_size=config.num_filters, downsampling_ratios=list(config.ratios))
    theirs.hidden_size = config.dim
    return DacModel(theirs).encoder.eval()


def time_hybrid(seconds: float, rounds: int, device: str, counts_work: bool = False) -> HybridTiming:
    """Time the preset `hybrid-codec` with random weights, which cost what trained ones cost."""
    from transformers import AutoModel

    from codec import export_codec, preset_config
    from codec.foundation import seed_globals

    seed_globals(_SEED, "hybrid")
    where = torch.device(device)
    with torch.no_grad():
        codec: Any = export_codec(AutoModel.from_config(preset_config(_PRESET)).eval())
        codec.to(where)
        taught = TaughtEncoder(codec, published_teacher()).to(where)
        dac = dac_encoder(codec.config.encoder_config).to(where)
    audio = speech_like(codec.config.sampling_rate, seconds).to(where)
    audio = nn.functional.pad(audio, (0, -audio.shape[-1] % codec.config.hop_length))
    with torch.inference_mode():
        found = take_turns(
            [
                Case(OURS, lambda: codec.encode(audio)),
                Case(WITH_TEACHER, lambda: taught(audio)),
                Case(WAVEFORM, lambda: codec.encoder(audio[:, 0])),
                Case(DAC, lambda: dac(audio)),
            ],
            rounds,
            where,
            "encoding beside w2v-BERT 2.0 and DAC",
            counts_work=counts_work,
        )
    return HybridTiming(seconds, found[OURS], found[WITH_TEACHER], found[WAVEFORM], found[DAC])
