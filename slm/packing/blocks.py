"""Blocks of packed documents: what a training step sees."""

from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from codec.foundation import generator
from slm.documents import CONTROL, Documents
from slm.packing.plan_cache import plan_blocks

IGNORED = -100  # a label without a loss, as PyTorch's cross entropy has it


class Block(TypedDict):
    """One row of a batch; all tensors are (block_length,)."""

    input_ids: Tensor  # int64
    labels: Tensor  # int64, the token to predict at that very place (not shifted), or -100
    position_ids: Tensor  # int64, from 0 in every document, and in the padding
    loss_weights: Tensor  # float32, weight of the label; 0 where it is -100
    modality: Tensor  # uint8, of the label: CONTROL, TEXT or SPEECH


class PackedBlocks(Dataset[Block]):
    """The blocks of an epoch, shuffled: a function of (documents, block length, epoch) alone.

    Positions restart with every document, and nothing may attend from one document to another: give the model
    `position_ids` without an attention mask. No document's first token has a label, nor has padding.
    """

    def __init__(self, documents: Documents, block_length: int, epoch: int):
        self.documents = documents
        self.block_length = block_length
        self.epoch = epoch
        self.plan = plan_blocks(documents.lengths(epoch), block_length)
        self._order = generator(documents.seed, "order of blocks", epoch).permutation(len(self.plan))

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> Block:
        plan, length = self.plan, self.block_length
        input_ids = np.full(length, self.documents.vocabulary.pad_id, dtype=np.int64)
        labels = np.full(length, IGNORED, dtype=np.int64)
        position_ids = np.empty(length, dtype=np.int64)
        loss_weights = np.zeros(length, dtype=np.float32)
        modality = np.full(length, CONTROL, dtype=np.uint8)

        block = int(self._order[index])
        end = 0
        for piece in range(int(plan.block_starts[block]), int(plan.block_starts[block + 1])):
            document = self.documents.build(self.epoch, int(plan.documents[piece]))
            first = int(plan.starts[piece])
            part = slice(first, first + length)
            place = slice(end, end + len(document.input_ids[part]))
            input_ids[place] = document.input_ids[part]
            labels[place] = document.targets[part]
            loss_weights[place] = document.loss_weights[part]
            loss_weights[place.start] = 0.0  # also where a piece of a cut document begins
            modality[place] = document.modality[part]
            position_ids[place] = np.arange(place.stop - place.start)
            end = place.stop
        position_ids[end:] = np.arange(length - end)
        labels[loss_weights == 0.0] = IGNORED
        return {
            "input_ids": torch.from_numpy(input_ids),
            "labels": torch.from_numpy(labels),
            "position_ids": torch.from_numpy(position_ids),
            "loss_weights": torch.from_numpy(loss_weights),
            "modality": torch.from_numpy(modality),
        }
