"""How good codes and decoded speech are: metrics that know nothing of corpora or language models."""

from codec.metrics.codebook import CodebookStatistics, CodebookUse
from codec.metrics.columns import Column
from codec.metrics.dependencies import MissingDependency
from codec.metrics.dnsmos import DNSMOSScore, dnsmos
from codec.metrics.information import (
    Classification,
    Information,
    naive_bayes,
    predictive_information,
)
from codec.metrics.intelligibility import stoi
from codec.metrics.intervals import (
    Interval,
    bootstrap_mean,
    bootstrap_ratio,
    clustered_share,
    wilson_interval,
)
from codec.metrics.listening import pesq_wide_band
from codec.metrics.mel import DEV_LOG_MEL, decoded_mel_l1, log_mel, log_mel_l1
from codec.metrics.pitch import VoicingScore, compare_f0, voicing
from codec.metrics.prosody import ProsodySpread, prosody, sounding_seconds
from codec.metrics.recognizers import (
    PocketSphinxRecognizer,
    Recognizer,
    TransformersRecognizer,
    open_recognizer,
)
from codec.metrics.speakers import SpeakerEmbedder, SpeakerSimilarity
from codec.metrics.stability import (
    CodeStability,
    Perturbation,
    StabilityShare,
    edit_distances,
    perturbations,
)
from codec.metrics.stft import STFTDistance, multi_resolution_stft
from codec.metrics.transcripts import EditCounts, character_errors, normalize_transcript, word_errors
from codec.metrics.utmos import UTMOS, UTMOSPredictor
from codec.metrics.waveforms import (
    WAVEFORM_METRICS,
    UsableMetrics,
    WaveformMetric,
    score_waveforms,
    usable_metrics,
)

__all__ = [
    "DEV_LOG_MEL",
    "UTMOS",
    "WAVEFORM_METRICS",
    "Classification",
    "CodeStability",
    "CodebookStatistics",
    "CodebookUse",
    "Column",
    "DNSMOSScore",
    "EditCounts",
    "Information",
    "Interval",
    "MissingDependency",
    "Perturbation",
    "PocketSphinxRecognizer",
    "ProsodySpread",
    "Recognizer",
    "STFTDistance",
    "SpeakerEmbedder",
    "SpeakerSimilarity",
    "StabilityShare",
    "TransformersRecognizer",
    "UTMOSPredictor",
    "UsableMetrics",
    "VoicingScore",
    "WaveformMetric",
    "bootstrap_mean",
    "bootstrap_ratio",
    "character_errors",
    "clustered_share",
    "compare_f0",
    "decoded_mel_l1",
    "dnsmos",
    "edit_distances",
    "log_mel",
    "log_mel_l1",
    "multi_resolution_stft",
    "naive_bayes",
    "normalize_transcript",
    "open_recognizer",
    "perturbations",
    "pesq_wide_band",
    "predictive_information",
    "prosody",
    "score_waveforms",
    "sounding_seconds",
    "stoi",
    "usable_metrics",
    "voicing",
    "wilson_interval",
    "word_errors",
]
