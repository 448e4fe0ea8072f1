"""Prompt embeddings: those of the text encoder, whatever the batch, encoded once and kept on disk."""

import hashlib
import json

import torch
from safetensors.torch import save_file

from landscape_video.training.data import tensor_store
from landscape_video.training.data.tensor_store import PromptEmbedsCache
from tiny_models import build_text_encoder, build_tokenizer


def test_embeddings_are_the_text_encoders_and_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    encoder = build_text_encoder(tokenizer)
    embeds = PromptEmbedsCache(tokenizer, encoder)
    first = embeds(["misty mountains", ""])
    again = PromptEmbedsCache(tokenizer, encoder, cache_bytes=0)(["", "a boat", "misty mountains"])
    assert first.shape == (2, 77, 16) and not first.requires_grad
    assert torch.equal(first[0], again[2]) and torch.equal(first[1], again[0])
    assert torch.equal(embeds(["misty mountains"])[0], first[0])
    ids = tokenizer(["misty mountains"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    torch.testing.assert_close(first[:1], encoder(ids)[0].detach())


def test_a_long_caption_is_cut_with_a_warning(caplog):
    tokenizer = build_tokenizer()
    embeds = PromptEmbedsCache(tokenizer, build_text_encoder(tokenizer))
    assert embeds(["mist " * 200]).shape == (1, 77, 16)
    embeds(["rain " * 200])
    assert caplog.text.count("cut after 77 tokens") == 1 and "mist mist" in caplog.text


def test_captions_are_encoded_once(tmp_path, monkeypatch):
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    encoder = build_text_encoder(tokenizer)
    fresh = PromptEmbedsCache(tokenizer, encoder)(["mist", "a boat"])
    monkeypatch.setattr(tensor_store, "CAPTIONS_PER_SHARD", 1)
    PromptEmbedsCache(tokenizer, encoder).store(["mist", "a boat", "mist"], tmp_path)
    assert len(list(tmp_path.rglob("shard-*.safetensors"))) == 2

    calls = []
    monkeypatch.setattr(PromptEmbedsCache, "_encode", lambda cache, text: calls.append(text) or fresh[:1])
    stored = PromptEmbedsCache(tokenizer, encoder, cache_bytes=0)
    stored.store(["mist", "a boat", "snow"], tmp_path)
    assert calls == ["snow"] and torch.equal(stored(["mist", "a boat"]), fresh)
    encoder.final_layer_norm.weight.data += 1
    PromptEmbedsCache(tokenizer, encoder).store(["mist"], tmp_path)
    assert calls == ["snow", "mist"]


def test_embeddings_that_earlier_versions_stored_are_read(tmp_path, monkeypatch):
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    encoder = build_text_encoder(tokenizer)

    def digest(value: object) -> str:
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    # As earlier versions named them: by text encoder, type, tokenizer and caption.
    weights = hashlib.sha256()
    settings = {name: value for name, value in encoder.config.to_dict().items() if not name.startswith("_")}
    weights.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        weights.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        weights.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    vocabulary = digest([type(tokenizer).__name__, tokenizer.get_vocab(), tokenizer.model_max_length])
    folder = tmp_path / f"text-{digest([weights.hexdigest(), 'torch.float32', vocabulary])[:32]}"
    folder.mkdir()
    stored = {hashlib.sha256(b"mist").hexdigest(): torch.full((1, 77, 16), 2.0)}
    save_file(stored, folder / f"shard-{'0' * 32}.safetensors")

    monkeypatch.delattr(PromptEmbedsCache, "_encode")
    embeds = PromptEmbedsCache(tokenizer, encoder)
    embeds.store(["mist"], tmp_path)
    assert torch.equal(embeds(["mist"]), torch.full((1, 77, 16), 2.0))
