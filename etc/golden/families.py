"""Makes the golden models stages/tests/data/tiny-*: random weights, and what transformers computes with them.

Usage: python families.py ../../stages/tests/data [NAME…]

Needs `pip install torch transformers safetensors` (made with torch 2.15.0 and transformers 5.24.0, on the processor).
Weights are drawn by NumPy's generator from a seed that the model's name gives, moved off their defaults where a model
begins with ones or zeros, and rounded to bfloat16, so that files are half as large; the computation is in float32. Each
folder gets `config.json`, `model.safetensors` and `golden.json`: input ids, the logits at every position and 16 greedy
tokens, all computed without a cache.
"""

import importlib.metadata
import json
import math
import pathlib
import sys
import tempfile
import zlib

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

IDS, GREEDY = 28, 16

# What most small models share; a second shape of a family has sizes that are odd, or no multiples of 32.
EVEN = dict(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True,
)
ODD = dict(
    vocab_size=67, hidden_size=45, intermediate_size=34, num_hidden_layers=4, num_attention_heads=9,
    num_key_value_heads=3, head_dim=6, max_position_embeddings=101, tie_word_embeddings=True,
)
# The same with small experts, in families whose experts are as wide as that.
FEW, FEW_ODD = dict(EVEN, intermediate_size=24), dict(ODD, intermediate_size=14)
PLAIN = {"rope_theta": 10000.0, "rope_type": "default"}
SLIDING, FULL = "sliding_attention", "full_attention"


def experts(prefix="num_", count=5, chosen=3):
    return {f"{prefix}experts": count, "num_experts_per_tok": chosen}


def longrope(pairs, original, **more):
    draw = np.random.default_rng(pairs)
    factors = {
        "short_factor": [round(float(one), 3) for one in 1 + 0.2 * draw.random(pairs)],
        "long_factor": [round(float(one), 3) for one in 1 + 3 * draw.random(pairs)],
    }
    return {"rope_theta": 10000.0, "rope_type": "longrope", "original_max_position_embeddings": original,
            **factors, **more}


def latent(**more):
    return dict(ODD, head_dim=None, num_key_value_heads=9, qk_nope_head_dim=10, qk_rope_head_dim=6, v_head_dim=7,
                kv_lora_rank=22, moe_intermediate_size=14, first_k_dense_replace=1, n_shared_experts=1,
                norm_topk_prob=True, routed_scaling_factor=1.7, rope_interleave=True, **more)


def gemma4(**more):
    ropes = {SLIDING: PLAIN, FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6}}
    return dict(rope_parameters=ropes, hidden_size_per_layer_input=0, final_logit_softcapping=11.0, **more)


def vision(config, text, **more):
    sizes = dict(depth=1, hidden_size=16, embed_dim=16, num_heads=2, intermediate_size=16, out_hidden_size=16)
    return getattr(transformers, config)(text_config=text, vision_config=sizes, **more)


def mrope(sections, theta=1e6, **more):
    return {"rope_theta": theta, "rope_type": "default", "mrope_section": sections, **more}


HUNYUAN = dict(num_experts=5, moe_topk=3, use_qk_norm=True)
GRANITE = dict(embedding_multiplier=3.0, attention_multiplier=0.3, residual_multiplier=0.6, logits_scaling=2.0)
ERNIE = dict(moe_num_experts=5, moe_k=3, moe_intermediate_size=20, rope_parameters=PLAIN)
LLAMA4 = dict(attention_chunk_size=16, floor_scale=8, attn_scale=0.4, rope_parameters=PLAIN)

MODELS = {
    "gemma4-small": ("Gemma4ForCausalLM", "Gemma4TextConfig", gemma4(
        **EVEN, head_dim=8, global_head_dim=16, sliding_window=16, layer_types=[SLIDING, SLIDING, SLIDING, FULL])),
    "gemma4-moe": ("Gemma4ForCausalLM", "Gemma4TextConfig", gemma4(
        **EVEN, head_dim=8, global_head_dim=16, sliding_window=16, layer_types=[SLIDING, FULL, SLIDING, FULL],
        attention_k_eq_v=True, num_global_key_value_heads=1, enable_moe_block=True, num_experts=6, top_k_experts=2,
        moe_intermediate_size=16)),
    "gemma4-odd": ("Gemma4ForCausalLM", "Gemma4TextConfig", gemma4(
        **{**ODD, "head_dim": 10}, global_head_dim=14, sliding_window=7, layer_types=[FULL, SLIDING, SLIDING, FULL],
        attention_k_eq_v=True, num_global_key_value_heads=1, enable_moe_block=True, num_experts=5, top_k_experts=3,
        moe_intermediate_size=14)),
    "phi3-longrope": ("Phi3ForCausalLM", "Phi3Config", dict(
        EVEN, sliding_window=16, pad_token_id=0, original_max_position_embeddings=20,
        rope_parameters=longrope(4, 20))),
    "phi3-odd": ("Phi3ForCausalLM", "Phi3Config", dict(
        ODD, hidden_size=54, sliding_window=None, pad_token_id=0,
        max_position_embeddings=64, original_max_position_embeddings=64, rope_parameters=longrope(
            2, 64, partial_rotary_factor=0.67, attention_factor=1.2))),
    "granitemoe": ("GraniteMoeForCausalLM", "GraniteMoeConfig", dict(
        FEW, **GRANITE, **experts("num_local_", 6, 2), rope_parameters=PLAIN)),
    "granitemoe-odd": ("GraniteMoeSharedForCausalLM", "GraniteMoeSharedConfig", dict(
        FEW_ODD, hidden_size=54, head_dim=None, **GRANITE, **experts("num_local_"), shared_intermediate_size=22,
        rope_parameters=PLAIN)),
    "glm4": ("Glm4ForCausalLM", "Glm4Config", dict(
        EVEN, head_dim=16, attention_bias=True, pad_token_id=0,
        rope_parameters={**PLAIN, "partial_rotary_factor": 0.5})),
    "glm4-odd": ("Glm4ForCausalLM", "Glm4Config", dict(
        ODD, head_dim=12, attention_bias=False, pad_token_id=0,
        rope_parameters={**PLAIN, "partial_rotary_factor": 0.5})),
    "ernie4_5_moe": ("Ernie4_5_MoeForCausalLM", "Ernie4_5_MoeConfig", dict(
        EVEN, **ERNIE, moe_num_shared_experts=2, moe_layer_start_index=1)),
    "ernie4_5_moe-odd": ("Ernie4_5_MoeForCausalLM", "Ernie4_5_MoeConfig", dict(
        ODD, **{**ERNIE, "moe_intermediate_size": 18}, moe_num_shared_experts=0, moe_layer_start_index=0,
        moe_layer_interval=2, use_bias=False)),
    "hunyuan_v1_moe": ("HunYuanMoEV1ForCausalLM", "HunYuanMoEV1Config", dict(
        FEW, **HUNYUAN, head_dim=8, rope_parameters=PLAIN)),
    "hunyuan_v1_moe-odd": ("HunYuanMoEV1ForCausalLM", "HunYuanMoEV1Config", dict(
        FEW_ODD, **HUNYUAN, rope_parameters={"rope_theta": 11158839.925, "rope_type": "default"})),
    "llama4": ("Llama4ForCausalLM", "Llama4TextConfig", dict(
        FEW, **LLAMA4, head_dim=8, intermediate_size_mlp=48, interleave_moe_layer_step=1,
        num_experts_per_tok=1, num_local_experts=4)),
    "llama4-odd": ("Llama4ForCausalLM", "Llama4TextConfig", dict(
        FEW_ODD, **{**LLAMA4, "attention_chunk_size": 7}, num_hidden_layers=5, intermediate_size_mlp=46,
        interleave_moe_layer_step=2, num_experts_per_tok=3, num_local_experts=5)),
    "qwen2_vl": ("Qwen2VLForConditionalGeneration", "Qwen2VLConfig", dict(
        EVEN, rope_parameters=mrope([2, 1, 1]))),
    "qwen2_vl-odd": ("Qwen2VLForConditionalGeneration", "Qwen2VLConfig", dict(
        ODD, hidden_size=54, head_dim=None, rope_parameters=mrope([1, 1, 1]))),
    "qwen3_vl": ("Qwen3VLForConditionalGeneration", "Qwen3VLConfig", dict(
        EVEN, head_dim=16, rope_parameters=mrope([4, 2, 2], mrope_interleaved=True))),
    "qwen3_vl-odd": ("Qwen3VLForConditionalGeneration", "Qwen3VLConfig", dict(
        ODD, rope_parameters=mrope([1, 1, 1], mrope_interleaved=True))),
    "qwen3_vl_moe": ("Qwen3VLMoeForConditionalGeneration", "Qwen3VLMoeConfig", dict(
        EVEN, head_dim=16, **experts(count=6, chosen=2), moe_intermediate_size=24,
        rope_parameters=mrope([4, 2, 2], mrope_interleaved=True))),
    "qwen3_vl_moe-odd": ("Qwen3VLMoeForConditionalGeneration", "Qwen3VLMoeConfig", dict(
        ODD, **experts(), moe_intermediate_size=14, rope_parameters=mrope([1, 1, 1], mrope_interleaved=True))),
    # Second shapes of the families that have a larger model beside them.
    "llama-odd": ("LlamaForCausalLM", "LlamaConfig", dict(
        ODD, attention_bias=False, rope_parameters={"rope_type": "linear", "factor": 2.5, "rope_theta": 5000.0})),
    "mistral-odd": ("MistralForCausalLM", "MistralConfig", dict(ODD, sliding_window=7, rope_parameters=PLAIN)),
    "mixtral-odd": ("MixtralForCausalLM", "MixtralConfig", dict(
        FEW_ODD, sliding_window=7, **experts("num_local_"), rope_parameters=PLAIN)),
    "qwen2-odd": ("Qwen2ForCausalLM", "Qwen2Config", dict(
        ODD, hidden_size=54, head_dim=None, rope_parameters=PLAIN)),
    "qwen3-odd": ("Qwen3ForCausalLM", "Qwen3Config", dict(ODD, rope_parameters=PLAIN)),
    "qwen2_moe-odd": ("Qwen2MoeForCausalLM", "Qwen2MoeConfig", dict(
        ODD, hidden_size=54, head_dim=None, **experts(), moe_intermediate_size=14, shared_expert_intermediate_size=26,
        rope_parameters=PLAIN)),
    "qwen3_moe-odd": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", dict(
        ODD, **experts(), moe_intermediate_size=14, norm_topk_prob=True, rope_parameters=PLAIN)),
    "deepseek_v2-odd": ("DeepseekV2ForCausalLM", "DeepseekV2Config", dict(
        latent(), q_lora_rank=14, n_routed_experts=6, num_experts_per_tok=3, topk_method="group_limited_greedy",
        n_group=3, topk_group=2, rope_parameters=PLAIN) | dict(norm_topk_prob=False)),
    "deepseek_v3-odd": ("DeepseekV3ForCausalLM", "DeepseekV3Config", dict(
        latent(), q_lora_rank=None, n_routed_experts=5, num_experts_per_tok=3, n_group=1, topk_group=1,
        rope_parameters=PLAIN)),
    "gemma2-odd": ("Gemma2ForCausalLM", "Gemma2Config", dict(
        ODD, sliding_window=7, query_pre_attn_scalar=6, attn_logit_softcapping=4.0, final_logit_softcapping=9.0,
        rope_parameters=PLAIN)),
    "gemma3-odd": ("Gemma3ForCausalLM", "Gemma3TextConfig", dict(
        ODD, num_hidden_layers=6, sliding_window=7, query_pre_attn_scalar=6,
        rope_parameters={SLIDING: PLAIN, FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}})),
    "granite-odd": ("GraniteForCausalLM", "GraniteConfig", dict(
        ODD, hidden_size=54, head_dim=None, **GRANITE, rope_parameters=PLAIN)),
    "minimax_m2-odd": ("MiniMaxM2ForCausalLM", "MiniMaxM2Config", dict(
        FEW_ODD, **experts("num_local_"), rope_parameters={**PLAIN, "partial_rotary_factor": 0.67})),
    "ministral3-odd": ("Ministral3ForCausalLM", "Ministral3Config", dict(
        ODD, sliding_window=None, rope_parameters={
            "rope_type": "yarn", "rope_theta": 1e6, "factor": 3.0, "original_max_position_embeddings": 9,
            "max_position_embeddings": 27, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.2})),
    "olmo2-odd": ("Olmo2ForCausalLM", "Olmo2Config", dict(ODD, hidden_size=54, head_dim=None, rope_parameters=PLAIN)),
    "lfm2-odd": ("Lfm2ForCausalLM", "Lfm2Config", dict(
        ODD, conv_L_cache=4, layer_types=[FULL, "conv", "conv", FULL], block_multiple_of=3,
        block_ffn_dim_multiplier=1.3, rope_parameters=PLAIN)),
    "smollm3-odd": ("SmolLM3ForCausalLM", "SmolLM3Config", dict(
        ODD, hidden_size=54, head_dim=None, pad_token_id=0, rope_parameters=PLAIN)),
    "glm4_moe-odd": ("Glm4MoeForCausalLM", "Glm4MoeConfig", dict(
        ODD, head_dim=12, use_qk_norm=False, attention_bias=True, n_routed_experts=5, num_experts_per_tok=3,
        moe_intermediate_size=14, n_shared_experts=1, first_k_dense_replace=2, norm_topk_prob=True, n_group=1,
        topk_group=1, routed_scaling_factor=1.3, rope_parameters={**PLAIN, "partial_rotary_factor": 0.5})),
    "gpt_oss-odd": ("GptOssForCausalLM", "GptOssConfig", dict(
        FEW_ODD, sliding_window=7, **experts("num_local_"), rope_parameters={
            "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 25,
            "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False})),
}


def build(model_class, config_class, sizes):
    unset = "sliding_window", "q_lora_rank"
    sizes = {key: value for key, value in sizes.items() if value is not None or key in unset}
    if "VL" in config_class:
        tied = sizes.pop("tie_word_embeddings")
        config = vision(config_class, sizes | {"tie_word_embeddings": tied}, tie_word_embeddings=tied)
    else:
        config = getattr(transformers, config_class)(**sizes)
    config._attn_implementation = config._experts_implementation = "eager"
    return getattr(transformers, model_class)._from_config(config, dtype=torch.float32).eval()


def fill(model, draw):
    """Draws every weight: matrices by their inputs' number, others around what they begin with."""
    for name, tensor in list(model.named_parameters()) + list(model.named_buffers()):
        if "visual" in name or "inv_freq" in name or "embed_scale" in name or not tensor.is_floating_point():
            continue
        noise = torch.from_numpy(draw.standard_normal(tuple(tensor.shape), dtype=np.float32))
        if "embed_tokens" in name:
            value = 0.4 * noise
        elif tensor.dim() == 3 and "gate_up" in name and "llama4" in model.config.model_type:
            value = noise / math.sqrt(tensor.shape[1])
        elif tensor.dim() >= 2 and not name.endswith(("bias",)):
            value = noise * 1.2 / math.sqrt(tensor.shape[-1])
        elif name.endswith(("scale", "scalar")) or "norm" in name.lower() or "emb_ln" in name:
            begun = 0.0 if tensor.abs().max() == 0 else 1.0
            value = begun + 0.2 * noise
        else:
            value = 0.2 * noise
        tensor.data.copy_(value.to(torch.bfloat16).to(torch.float32))


def save(model, folder):
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        tensors = load_file(f"{scratch}/model.safetensors")
    kept = {}
    for name, tensor in tensors.items():
        if "visual" in name or name == "lm_head.weight" and model.config.get_text_config().tie_word_embeddings:
            continue
        short = tensor.to(torch.bfloat16).contiguous()
        assert torch.equal(short.to(torch.float32), tensor), f"{name} is no bfloat16"
        kept[name.replace("language_model.", "")] = short
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    config = model.config.get_text_config().to_dict()
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True, default=str) + "\n")


def logits_of(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def make(name, folder):
    seed = zlib.crc32(name.encode())
    draw = np.random.default_rng(seed)
    model = build(*MODELS[name])
    fill(model, draw)
    vocabulary = model.config.get_text_config().vocab_size
    ids = [int(one) for one in draw.integers(3, vocabulary, IDS)]
    logits = logits_of(model, ids)
    tops = logits.topk(2).values
    continued, gaps = list(ids), []
    for _ in range(GREEDY):
        best = logits_of(model, continued)[-1].topk(2)
        gaps.append(float(best.values[0] - best.values[1]))
        continued.append(int(best.indices[0]))
    folder.mkdir(exist_ok=True)
    save(model, folder)
    golden = {
        "transformers": transformers.__version__,
        "torch": importlib.metadata.version("torch"),
        "seed": seed,
        "input_ids": ids,
        "logits": [[float(f"{one:.6g}") for one in row] for row in logits.tolist()],
        "greedy_16": continued[IDS:],
    }
    (folder / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name}: {size} bytes, logits to {logits.abs().max():.1f}, least gap "
          f"{min((tops[:, 0] - tops[:, 1]).min().item(), *gaps):.1e}")


def main():
    torch.set_num_threads(1)
    data, *names = sys.argv[1:]
    for name in names or MODELS:
        make(name, pathlib.Path(data) / f"tiny-{name}")


if __name__ == "__main__":
    main()
