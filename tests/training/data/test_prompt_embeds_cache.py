"""Prompt embeddings: those of the text encoder, whatever the batch, encoded once and kept on disk."""

import torch

from landscape_video.training.data import prompt_embeds_cache
from landscape_video.training.data.prompt_embeds_cache import PromptEmbedsCache
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
    monkeypatch.setattr(prompt_embeds_cache, "CAPTIONS_PER_SHARD", 1)
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
