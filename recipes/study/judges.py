"""The neural networks that judge sound, where a study names their weights."""

from codec.metrics import UTMOS, Judge, SpeakerEmbedder, SpeakerSimilarity
from recipes.study.config import StudyConfig


def naturalness_judges(config: StudyConfig, device: str) -> list[Judge]:
    """UTMOS."""
    return [] if config.utmos is None else [UTMOS(config.utmos, device)]


def speaker_judges(config: StudyConfig, device: str) -> list[Judge]:
    """Similarity of a codec's output with its recording."""
    embedder = speaker_embedder(config, device)
    return [] if embedder is None else [SpeakerSimilarity(embedder)]


def speaker_embedder(config: StudyConfig, device: str) -> SpeakerEmbedder | None:
    """What tells speakers apart."""
    return None if config.speaker_model is None else SpeakerEmbedder(config.speaker_model, device)
