"""The fused decoder beside the forward pass of transformers."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from slm.generation.decoders import FusedDecoder, TransformersDecoder, decoder_for

SIZES = {
    "vocab_size": 160,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 16,
    "max_position_embeddings": 600,
    "initializer_range": 0.3,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS = {
    "llama": LlamaConfig(**SIZES, num_key_value_heads=4, tie_word_embeddings=True),
    "llama, grouped keys, biases, own head": LlamaConfig(
        **SIZES, num_key_value_heads=2, attention_bias=True, mlp_bias=True, tie_word_embeddings=False
    ),
    "llama, scaled positions": LlamaConfig(**SIZES, num_key_value_heads=1, rope_parameters=LLAMA3_ROPE),
    "qwen2": Qwen2Config(**SIZES, num_key_value_heads=2),
    "qwen3": Qwen3Config(**SIZES, num_key_value_heads=2, tie_word_embeddings=True),
}


def random_model(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):  # which start as ones and zeros
            torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.3)
    return model


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_it_computes_what_transformers_does(name):
    """Prompts, single tokens, several tokens behind others, past the first buffer, with rows copied and dropped."""
    model = random_model(MODELS[name])
    ids = torch.randint(0, 160, (3, 560), generator=torch.Generator().manual_seed(0))
    chunks = [(0, 9), (9, 10), (10, 250), *((n, n + 1) for n in range(250, 262)), (262, 540), (540, 541)]
    choices = {9: [0, 0, 0], 251: [2, 0]}
    reach = range(7, 150)

    def read(decoder):
        reading, found, rows = decoder.start(), [], [0]
        for start, end in chunks:
            found.append(reading.read(ids[: len(rows), start:end], reach))
            assert reading.position == end and found[-1].shape == (len(rows), len(reach))
            if end in choices:
                rows = choices[end]
                reading.select(torch.tensor(rows))
        return torch.cat(found)

    expected = read(TransformersDecoder(model))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    decoder = decoder_for(model)
    assert isinstance(decoder, FusedDecoder)
    torch.testing.assert_close(read(decoder), expected, rtol=1e-4, atol=1e-4)
    # the model is still the same, in both senses
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    torch.testing.assert_close(read(TransformersDecoder(model)), expected, rtol=1e-4, atol=1e-4)
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == model.config.tie_word_embeddings


def test_weights_are_joined_without_a_second_copy(tmp_path):
    model = random_model(MODELS["qwen3"])
    decoder = decoder_for(model)
    mlp = model.model.layers[0].mlp
    with torch.no_grad():
        mlp.up_proj.weight[3, 5] = 42.0
    assert decoder.layers[0].gate_up.weight[48 + 3, 5] == 42.0
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_other_models_keep_their_own_forward_pass():
    sliding = Qwen3Config(
        **SIZES, num_key_value_heads=2, use_sliding_window=True, sliding_window=8, max_window_layers=1
    )
    assert isinstance(decoder_for(random_model(sliding)), TransformersDecoder)
    dynamic = {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 2.0}
    config = LlamaConfig(**SIZES, num_key_value_heads=4, rope_parameters=dynamic)
    assert isinstance(decoder_for(random_model(config)), TransformersDecoder)
    adapted = random_model(MODELS["llama"])
    adapted.model.layers[1].mlp.up_proj = torch.nn.Sequential(adapted.model.layers[1].mlp.up_proj)
    assert isinstance(decoder_for(adapted), TransformersDecoder)
