import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig

from slm.training.loss import PackedLanguageModel
from slm.training.throughput import (
    FlopCounter,
    PeakFlops,
    Work,
    listed_tflops,
    peak_flops,
    report_throughput,
    work_of,
)
from tests.slm.test_loss import LENGTHS, blocks


def small_model(tied: bool = False):
    config = LlamaConfig(
        vocab_size=48, hidden_size=32, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, tie_word_embeddings=tied,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)


@pytest.mark.parametrize("tied", [False, True])
def test_the_count_is_that_of_pytorchs_own_counter(tied):
    """All documents as long as a block, so that nothing is computed only to be masked but half of the attention."""
    model, length = small_model(tied), 24
    row = {
        "input_ids": torch.randint(0, 48, (1, length)),
        "position_ids": torch.arange(length)[None],
        "labels": torch.randint(0, 48, (1, length)),
        "loss_weights": torch.cat([torch.zeros(1, 1), torch.ones(1, length - 1)], dim=1),
        "modality": torch.zeros(1, length, dtype=torch.uint8),
    }
    with FlopCounterMode(display=False) as counted:
        PackedLanguageModel(model, torch.zeros(48, dtype=torch.long))(**row)["loss"].backward()
    count = FlopCounter(model, model.get_output_embeddings())
    work = Work.of(work_of([{name: tensor[0] for name, tensor in row.items()}], 0, 0))
    assert work == Work(tokens=24, speech_tokens=0, pairs=24 * 25 / 2, predicted=23)
    whole_square = Work(work.tokens, 0, 24 * 24, work.predicted)
    assert count(whole_square) == pytest.approx(counted.get_total_flops(), rel=1e-3)


def test_frozen_weights_need_no_gradients_of_their_own():
    model = small_model()
    work = Work(10, 0, 0, 10)
    full = FlopCounter(model, model.get_output_embeddings())(work)
    model.requires_grad_(False)
    assert FlopCounter(model, model.get_output_embeddings())(work) == pytest.approx(full * 4 / 6)


def test_work_counts_what_is_read():
    data = blocks()
    rows = [{name: tensor[row] for name, tensor in data.items()} for row in range(2)]
    work = Work.of(work_of(rows, 10, 20))
    assert work.tokens == 64 and work.pairs == sum(n * (n + 1) / 2 for lengths in LENGTHS for n in lengths)
    assert work.speech_tokens == ((data["input_ids"] >= 10) & (data["input_ids"] < 20)).sum()
    assert work.predicted == (data["loss_weights"] != 0).sum()


def test_reports_are_per_second_and_per_device():
    model = small_model()
    counter = FlopCounter(model, model.get_output_embeddings())
    work = Work(tokens=8000, speech_tokens=4800, pairs=0, predicted=8000)
    report = report_throughput(work, 2.0, 24.0, counter, PeakFlops(1e9, "given"), processes=4)
    assert report["tokens_per_second"] == 4000
    assert report["audio_hours_per_second"] == pytest.approx(100 / 3600)
    assert report["mfu"] == pytest.approx(counter(work) / 2 / 4 / 1e9)
    assert report["tflops_per_device"] == pytest.approx(report["mfu"] * 1e-3)
    experts = MixtralConfig(
        vocab_size=48, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(experts)
    unknown = FlopCounter(model, model.get_output_embeddings())
    assert "mfu" not in report_throughput(work, 2.0, 24.0, unknown, PeakFlops(1e9, "given"), 1)


def test_a_peak_says_where_it_is_from():
    assert listed_tflops("NVIDIA H100 80GB HBM3") == 989 and listed_tflops("NVIDIA H100 PCIe") == 756
    assert listed_tflops("NVIDIA A100-SXM4-80GB") == 312 and listed_tflops("NVIDIA L4") == 121
    assert listed_tflops("NVIDIA L40S") == 362 and listed_tflops("Some GPU of 2031") is None
    assert listed_tflops("NVIDIA A10G") == 70 and listed_tflops("NVIDIA H200") == 989
    given = peak_flops(torch.device("cpu"), torch.float32, 2.0)
    assert given == PeakFlops(2e12, "given")
    measured = peak_flops(torch.device("cpu"), torch.float32)
    assert "measured" in measured.source and 1e8 < measured.flops < 1e13
