"""The stages "tokenizer" and "text": a SentencePiece model, and a T5 v1.1 encoder that first learns to answer
questions about captions; it goes on learning together with the transformer."""

import io
import json
import pydoc_data.topics
import random

import numpy as np
import torch

from fixtures.scenes import scenes as other_scenes
from fixtures.text import Tokenizer, t5_config, t5_shapes

from . import captions, world

VOCAB, WIDTH, HEADS, HEAD, FF, LAYERS = 2000, 128, 4, 32, 256, 3


# ---- tokenizer ---------------------------------------------------------------------------------


def train_tokenizer(folder, seed):
    """Unigram with T5's options, from English that ships with Python and from captions."""
    import sentencepiece
    prose = "\n".join(pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics))
    lines = [line.strip() for line in prose.splitlines() if line.strip()]
    pick = np.random.default_rng([seed, 2])
    lines += [captions.caption(world.draw_scene(pick), pick) for _ in range(6000)]
    lines += other_scenes(random.Random(seed), 2000) + [captions.NEGATIVE] * 5
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="unigram", vocab_size=VOCAB,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", eos_piece="</s>", unk_piece="<unk>",
        normalization_rule_name="nmt_nfkc", byte_fallback=False, num_threads=1, minloglevel=2)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())


class Tokens:
    """Captions -> (ids, mask), each sentence looked up once. Lengths are multiples of 16: fewer shapes of matrices, for
    each of which oneDNN first makes itself code."""

    def __init__(self, folder):
        self.tokenizer = Tokenizer(folder)

    def __call__(self, texts):
        rows = [self.tokenizer.encode(text) for text in texts]
        longest = -(-max(map(len, rows)) // 16) * 16
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        return ids, mask


# ---- encoder -----------------------------------------------------------------------------------


# How much a head's scores fall with every place to the left and to the right, to begin with. Without it the encoder
# stays a bag of words, for which a red ball on a blue floor is a blue ball on a red one.
NEARNESS = ((1.0, 1.0), (0.3, 3.0), (3.0, 0.3), (0.1, 0.1))


def build():
    from transformers import T5EncoderModel
    model = T5EncoderModel(t5_config(WIDTH, HEAD, HEADS, FF, LAYERS, VOCAB + 128))
    bias = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    away = torch.arange(len(bias) // 2)                                  # buckets: to the left, then to the right
    bias.data = -torch.stack([torch.cat([away * left, away * right]) for left, right in NEARNESS], 1)
    return model


class Questions(torch.nn.Module):
    """Only there to teach the encoder: one glance over the tokens for the floor and for the thing of each
    colour, then linear answers."""

    def __init__(self):
        super().__init__()
        self.glance = torch.nn.Parameter(torch.randn(len(world.COLOURS) + 1, WIDTH) / WIDTH ** 0.5)
        self.floor = torch.nn.Linear(WIDTH, len(world.FLOORS))
        self.answers = torch.nn.ModuleDict({k: torch.nn.Linear(WIDTH, n) for k, n in captions.QUESTIONS.items()})

    def forward(self, text, mask, labels):
        """(mean cross entropy, share of right answers); labels [B, 1] for the floor, else [B, colours]"""
        weight = (self.glance @ text.transpose(1, 2)).masked_fill(mask[:, None] == 0, -1e4).softmax(-1)
        seen = weight @ text                                             # [B, colours + 1, WIDTH]
        logits = {key: answer(seen[:, :-1]) for key, answer in self.answers.items()}
        logits["floor"] = self.floor(seen[:, -1:])
        loss, right, asked = 0.0, 0.0, 0.0
        for key, row in logits.items():
            loss = loss + torch.nn.functional.cross_entropy(row.flatten(0, 1), labels[key].flatten(),
                                                            reduction="sum", ignore_index=-1)
            right = right + (row.argmax(-1) == labels[key]).sum()
            asked += float((labels[key] >= 0).sum())
        return loss / asked, right / asked


def stack_labels(rows, device):
    return {key: torch.tensor([row[key] for row in rows], device=device) for key in rows[0]}


def batch(tokens, seed, step, count):
    pick = np.random.default_rng([seed, 3, step])
    scenes = [world.draw_scene(pick, two=0.45) for _ in range(count)]
    ids, mask = tokens([captions.caption(scene, pick) for scene in scenes])
    return ids, mask, [captions.labels(scene) for scene in scenes]


def text_loss(t5, questions, data, device):
    ids, mask, rows = data
    text = t5(ids.to(device), attention_mask=mask.to(device))[0]
    loss, right = questions(text, mask.to(device), stack_labels(rows, device))
    return loss, {"loss": loss.detach(), "right": right}


def write_config(folder, cfg):
    keys = ("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size", "feed_forward_proj",
            "relative_attention_num_buckets", "relative_attention_max_distance", "layer_norm_epsilon",
            "dropout_rate", "pad_token_id", "eos_token_id", "decoder_start_token_id", "is_encoder_decoder",
            "use_cache", "tie_word_embeddings")
    card = {"architectures": ["T5EncoderModel"], "model_type": "t5", "dtype": "bfloat16"}
    card |= {key: getattr(cfg, key) for key in keys}
    (folder / "config.json").write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")


def stored(model):
    """State under the names a checkpoint has; the embedding once."""
    state = model.state_dict()
    return {name: state[name] for name in t5_shapes(model)}
