"""Speech to discrete tokens and back: HH-Codec (arXiv 2507.18897) and HybridCodec (arXiv 2606.06743).

In use:
    load_codec      a codec by name, directory or hub id; Codec: what it gives: encode, decode
    bundled_codecs  names of the codecs that come with the package; PRESETS: settings of those that can be trained
    CodecInfo       what codes mean: rates, codebooks, fingerprint
    CodecOutput, CodecEncoderOutput, CodecDecoderOutput, CodecLatentOutput  what the steps give
    CodecAdapter    a codec of transformers, used as ours are
    UserError       something that the user can mend, in one line

In training:
    HHCodecModel, HHCodecConfig, HybridCodecModel, HybridCodecConfig, CodecModel  the architectures
    preset_config   the configuration of a preset
    load_trained    the codec of a training run; export_codec, save_codec: to a model directory
    fingerprint     names the meaning of codes
"""

import lazy_loader

# The public names stand in __init__.pyi. Each is imported when first asked for: torch takes seconds.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
