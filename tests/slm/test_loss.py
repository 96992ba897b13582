import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from slm.training.loss import (
    PER_DOCUMENT,
    LossSums,
    PackedLanguageModel,
    document_lengths,
    per_document_attention,
)

LENGTHS = [[7, 1, 12, 5, 1, 6], [20, 3, 9]]  # documents of two blocks of 32 tokens
SIZE = 48


def model_of(family, attention: str, seed: int = 0):
    config = family(
        vocab_size=SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, pad_token_id=None, bos_token_id=None, eos_token_id=None,
        initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(seed)
    return (
        AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32)
        .double()
        .eval()
    )


def blocks(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(LENGTHS), 32)
    ids = torch.randint(0, SIZE, shape, generator=generator)
    positions = torch.stack([torch.cat([torch.arange(n) for n in lengths]) for lengths in LENGTHS])
    weights = torch.rand(shape, generator=generator) * (torch.rand(shape, generator=generator) < 0.6)
    weights[positions == 0] = 0.0
    return {
        "input_ids": ids,
        "position_ids": positions,
        "labels": torch.randint(0, SIZE, shape, generator=generator).masked_fill(weights == 0, -100),
        "loss_weights": weights,
        "modality": torch.randint(0, 3, shape, generator=generator).to(torch.uint8),
    }


def test_a_row_may_begin_in_the_middle_of_a_document():
    assert document_lengths(torch.tensor([[5, 6, 0, 1], [2, 3, 4, 0]])) == [2, 2, 3, 1]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_document_lengths_are_found_again(lengths):
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    assert document_lengths(positions) == lengths


@pytest.mark.parametrize("attention", ["sdpa", "eager", PER_DOCUMENT])
@pytest.mark.parametrize("family", [LlamaConfig, Qwen3Config])
def test_packed_documents_do_not_see_each_other(family, attention):
    model, alone = model_of(family, attention), model_of(family, "eager")
    alone.load_state_dict(model.state_dict())
    data = blocks()
    with torch.no_grad():
        packed = model(input_ids=data["input_ids"], position_ids=data["position_ids"], use_cache=False).logits
        for row, lengths in enumerate(LENGTHS):
            for document, logits in zip(
                data["input_ids"][row].split(lengths), packed[row].split(lengths), strict=True
            ):
                expected = alone(input_ids=document[None], use_cache=False).logits[0]
                # The norms are computed in float32, whatever the model's precision.
                torch.testing.assert_close(logits, expected, rtol=0, atol=2e-6)


def test_long_documents_are_attended_alike():
    lengths = [530, 3, 512]
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    ids = torch.randint(0, SIZE, positions.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = (
            model_of(Qwen3Config, name)(input_ids=ids, position_ids=positions, use_cache=False).logits
            for name in (PER_DOCUMENT, "sdpa")
        )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("attention", ["sdpa", PER_DOCUMENT])
def test_the_loss_equals_one_token_at_a_time(attention):
    model = model_of(LlamaConfig, attention)
    data = blocks(1)
    text_bytes = torch.arange(SIZE) % 4
    output = PackedLanguageModel(model, text_bytes)(**data)
    reference = model_of(LlamaConfig, "eager")
    weighted, nats, tokens, spelled = 0.0, [0.0] * 3, [0] * 3, 0
    for row, lengths in enumerate(LENGTHS):
        end = 0
        for length in lengths:
            start, end = end, end + length
            logits = reference(input_ids=data["input_ids"][row, start:end][None], use_cache=False).logits[0]
            for place in range(start + 1, end):
                weight = data["loss_weights"][row, place].item()
                if not weight:
                    continue
                target, kind = data["labels"][row, place], int(data["modality"][row, place])
                loss = -F.log_softmax(logits[place - start - 1], 0)[target].item()
                weighted += weight * loss
                nats[kind] += loss
                tokens[kind] += 1
                spelled += int(text_bytes[target])
    sums = LossSums.of(LossSums.vector(output, data["loss_weights"].sum()).double())
    assert sums.weighted == pytest.approx(weighted, rel=1e-6)
    assert sums.weight == pytest.approx(data["loss_weights"].sum().item())
    assert sums.nats == pytest.approx(nats, rel=1e-6)
    assert list(sums.tokens) == tokens
    assert sums.text_bytes == spelled


def test_gradients_are_those_of_the_weighted_sum():
    data = blocks(2)
    gradients = []
    for attention in ("eager", PER_DOCUMENT):
        model = model_of(Qwen3Config, attention)
        PackedLanguageModel(model, torch.zeros(SIZE, dtype=torch.long))(**data)["loss"].backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-5)


def test_reports_are_in_bits_per_byte_token_and_second():
    sums = LossSums(
        weighted=6.0,
        weight=4.0,
        nats=(math.log(2), 8 * math.log(2), 30 * math.log(2)),
        tokens=(2, 5, 6),
        text_bytes=16,
    )
    assert sums.report(frame_rate=24.0, num_quantizers=2) == pytest.approx(
        {
            "loss": 1.5,
            "control/bits_per_token": 0.5,
            "text/bits_per_byte": 0.5,
            "speech/bits_per_token": 5.0,
            "speech/bits_per_second": 240.0,
        }
    )
    assert set(LossSums(1.0, 1.0, (0, 0, 1.0), (0, 0, 1)).report(24.0, 1)) == {
        "loss", "speech/bits_per_token", "speech/bits_per_second",
    }  # fmt: skip
    assert LossSums.together([sums, sums]).report(24.0, 2) == pytest.approx(sums.report(24.0, 2))


def test_the_z_loss_is_for_training_alone():
    data, model = blocks(3), model_of(LlamaConfig, PER_DOCUMENT)
    plain = PackedLanguageModel(model, torch.arange(SIZE)).train()(**data)
    packed = PackedLanguageModel(model, torch.arange(SIZE), z_loss=0.5)
    assert packed.eval()(**data)["loss"] == plain["loss"]
    output = packed.train()(**data)
    logits = model(data["input_ids"], position_ids=data["position_ids"], use_cache=False).logits[:, :-1]
    log_z = logits.exp().sum(-1).log()
    extra = 0.5 * (data["loss_weights"][:, 1:] * log_z**2).sum()
    torch.testing.assert_close(output["loss"], plain["loss"] + extra, rtol=1e-12, atol=0)
    assert torch.equal(output["nats"], plain["nats"])


@pytest.mark.parametrize(("tied", "z_loss"), [(False, 0.0), (True, 0.0), (True, 0.1)])
def test_logits_in_chunks_train_as_logits_at_once(tied, z_loss):
    data = blocks(3)
    gradients, losses = [], []
    for mib in (512.0, 3 * SIZE * 8 / 2**20):  # all at once; three places at a time
        model = model_of(LlamaConfig, PER_DOCUMENT)
        if tied:
            model.config.tie_word_embeddings = True
            model.lm_head.weight = model.model.embed_tokens.weight
        output = PackedLanguageModel(model, torch.arange(SIZE), mib, z_loss).train()(**data)
        output["loss"].backward()
        losses.append(output)
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-12, atol=1e-12)
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, rtol=1e-12, atol=1e-12)


def test_flash_attention_is_told_every_boundary():
    """A stand-in that attends as it is told to: with what transformers finds by itself, rows would leak."""
    from transformers import AttentionInterface

    def told(module, query, key, value, mask, *, scaling, cu_seq_lens_q, max_length_q, **_):
        edges = cu_seq_lens_q.tolist()
        assert max_length_q == max(end - start for start, end in itertools.pairwise(edges))
        positions = torch.cat([torch.arange(end - start) for start, end in itertools.pairwise(edges)])
        return per_document_attention(
            module, query, key, value, None, position_ids=positions.view(len(query), -1), scaling=scaling
        )

    AttentionInterface.register("flash_attention_stand_in", told)
    data = blocks(4)
    model, plain = (model_of(LlamaConfig, name) for name in (PER_DOCUMENT, PER_DOCUMENT))
    model.config._attn_implementation = "flash_attention_stand_in"
    text_bytes = torch.zeros(SIZE, dtype=torch.long)
    nats = [PackedLanguageModel(one, text_bytes)(**data)["nats"] for one in (model, plain)]
    torch.testing.assert_close(nats[0], nats[1])


def test_checkpointed_activations_give_the_same_gradients():
    data = blocks(5)
    gradients = []
    for checkpointing in (False, True):
        model = model_of(Qwen3Config, PER_DOCUMENT).train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        PackedLanguageModel(model, torch.zeros(SIZE, dtype=torch.long))(**data)["loss"].backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert torch.equal(gradients[0], gradients[1])


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2"])
def test_packed_documents_do_not_see_each_other_on_a_gpu(attention):
    if attention.startswith("flash"):
        pytest.importorskip("flash_attn")
    device, data = torch.device("cuda"), blocks()
    alone = model_of(LlamaConfig, "eager").float().to(device)
    model = AutoModelForCausalLM.from_config(
        alone.config, attn_implementation=attention, dtype=torch.bfloat16
    )
    model.load_state_dict(alone.state_dict())
    packed = PackedLanguageModel(model.to(device).eval(), torch.zeros(SIZE, dtype=torch.long, device=device))
    batch = {name: tensor.to(device) for name, tensor in data.items()}
    with torch.no_grad():
        found = packed(**batch)["nats"].float()
        expected = PackedLanguageModel(alone, packed.text_bytes)(**batch)["nats"].float()
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.0)
