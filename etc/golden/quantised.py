"""Makes the golden models stages/tests/data/tiny-*: folders whose weights are quantised as MLX, GPTQ, AWQ, DeepSeek-V3
(FP8) and gpt-oss (MXFP4) store them, and what transformers computes with the same weights as floats.

Usage: python quantised.py ../../stages/tests/data [NAME…]

Needs what `families.py` needs. Every codec below writes the tensors of one matrix and returns the floats that they
stand for, computed in single precision from what was written; those of MXFP4 come from transformers' own reader. Each
folder gets `config.json`, `model.safetensors` and `golden.json`: input ids, the logits at every position, and for each
quantised matrix, by its name in GGUF files, the SHA-256 of its floats.
"""

import hashlib
import importlib.metadata
import json
import pathlib
import re
import sys
import tempfile
import zlib

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

import families

SIZES = dict(
    vocab_size=64, hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, max_position_embeddings=128, tie_word_embeddings=False,
)
# All are chosen: rounded activations would change the choices between random experts.
EXPERTS = dict(num_experts=4, num_experts_per_tok=4, moe_intermediate_size=64, norm_topk_prob=True)
LATENT = dict(
    SIZES, head_dim=None, num_key_value_heads=4, q_lora_rank=64, kv_lora_rank=64, qk_nope_head_dim=32,
    qk_rope_head_dim=16, v_head_dim=32, n_routed_experts=4, num_experts_per_tok=2, n_group=2, topk_group=1,
    moe_intermediate_size=64, first_k_dense_replace=1, n_shared_experts=1, norm_topk_prob=True,
    routed_scaling_factor=1.7, rope_interleave=True,
)

QWEN2 = ("Qwen2ForCausalLM", "Qwen2Config", dict(SIZES, tie_word_embeddings=True))
QWEN3 = ("Qwen3ForCausalLM", "Qwen3Config", dict(SIZES, tie_word_embeddings=True))
QWEN3_MOE = ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", dict(SIZES, **EXPERTS))
LLAMA = ("LlamaForCausalLM", "LlamaConfig", SIZES)
MISTRAL = ("MistralForCausalLM", "MistralConfig", dict(SIZES, sliding_window=None))
DEEPSEEK = ("DeepseekV3ForCausalLM", "DeepseekV3Config", LATENT)
GPT_OSS = ("GptOssForCausalLM", "GptOssConfig", dict(
    SIZES, intermediate_size=64, sliding_window=8, num_local_experts=4, num_experts_per_tok=2, rope_parameters={
        "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32,
        "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}))

# Ends of names in folders, and in GGUF files.
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_a_proj": "attn_q_a", "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_b_proj": "attn_kv_b",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp", "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp", "mlp.switch_mlp.gate_proj": "ffn_gate_exps",
    "mlp.switch_mlp.up_proj": "ffn_up_exps", "mlp.switch_mlp.down_proj": "ffn_down_exps",
    "mlp.experts.gate_proj": "ffn_gate_exps", "mlp.experts.up_proj": "ffn_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps",
}


def words(values, bits, axis=-1):
    """Packs neighbours along an axis into words of 32 bits, the first in the lowest bits."""
    each = 32 // bits
    values = values.movedim(axis, -1).to(torch.int64)
    values = values.reshape(*values.shape[:-1], -1, each) << (bits * torch.arange(each))
    packed = values.sum(-1)
    packed = torch.where(packed >= 1 << 31, packed - (1 << 32), packed).to(torch.int32)
    return packed.movedim(-1, axis).contiguous()


def ranges(weight, group, highest, dtype):
    """Least value and step of each group, rounded to a type, and the groups."""
    groups = weight.reshape(*weight.shape[:-1], -1, group)
    least, most = groups.amin(-1), groups.amax(-1)
    return groups, least.to(dtype), ((most - least) / highest).clamp(min=1e-4).to(dtype)


def mlx(bits, group, dtype=torch.bfloat16):
    def encode(path, weight):
        highest = (1 << bits) - 1
        groups, biases, scales = ranges(weight, group, highest, dtype)
        scale, bias = scales.float()[..., None], biases.float()[..., None]
        integers = ((groups - bias) / scale).round().clamp(0, highest)
        floats = (scale * integers + bias).reshape(weight.shape)
        packed = words(integers.reshape(weight.shape), bits).view(torch.uint32)
        return {f"{path}.weight": packed, f"{path}.scales": scales, f"{path}.biases": biases}, floats
    return encode


def fp8(high, wide, dtype=torch.float32):
    def encode(path, weight):
        rows, cols = weight.shape
        down, across = -(-rows // high), -(-cols // wide)
        scales = torch.zeros(down, across)
        for row in range(down):
            for col in range(across):
                block = weight[row * high:(row + 1) * high, col * wide:(col + 1) * wide]
                scales[row, col] = block.abs().max() / 448
        scales = scales.to(dtype)
        spread = scales.float().repeat_interleave(high, 0)[:rows].repeat_interleave(wide, 1)[:, :cols]
        stored = (weight / spread).clamp(-448, 448).to(torch.float8_e4m3fn)
        return {f"{path}.weight": stored, f"{path}.weight_scale_inv": scales}, stored.float() * spread
    return encode


def zeroed(weight, group):
    """Integers, zeros and scales `[row][group]` of groups of 4 bits, and their floats."""
    groups, least, scales = ranges(weight, group, 15, torch.float16)
    scale = scales.float()
    zeros = (-least.float() / scale).round().clamp(0, 15)
    integers = (groups / scale[..., None] + zeros[..., None]).round().clamp(0, 15)
    floats = scale[..., None] * (integers - zeros[..., None])
    return integers.reshape(weight.shape), zeros, scales, floats.reshape(weight.shape)


def gptq(group, zeros_below=1, dtype=torch.float16):
    def encode(path, weight):
        size = weight.shape[1] if group == -1 else group
        integers, zeros, scales, floats = zeroed(weight, size)
        return {
            f"{path}.qweight": words(integers.T, 4, 0),
            f"{path}.qzeros": words((zeros.T - zeros_below).to(torch.int64) & 15, 4),
            f"{path}.scales": scales.T.to(dtype).contiguous(),
            f"{path}.g_idx": (torch.arange(weight.shape[1]) // size).to(torch.int32),
        }, floats
    return encode


def awq(group):
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def ordered(values):
        return words(values.reshape(values.shape[0], -1, 8)[..., order].reshape(values.shape), 4)

    def encode(path, weight):
        integers, zeros, scales, floats = zeroed(weight, group)
        return {
            f"{path}.qweight": ordered(integers.T),
            f"{path}.qzeros": ordered(zeros.T),
            f"{path}.scales": scales.T.contiguous(),
        }, floats
    return encode


def mxfp4_parts(weight):
    """Pairs of values `[…][group][16]` and exponents `[…][group]` of groups of 32, and their floats by transformers."""
    levels = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    groups = weight.reshape(*weight.shape[:-1], -1, 32)
    exponents = torch.floor(torch.log2(groups.abs().amax(-1) / 4)).clamp(-20, 20)
    scaled = groups / torch.exp2(exponents)[..., None]
    nearest = (scaled.abs()[..., None] - levels).abs().argmin(-1) + 8 * (scaled < 0)
    pairs = (nearest[..., 0::2] | nearest[..., 1::2] << 4).to(torch.uint8)
    exponents = (exponents + 127).to(torch.uint8)
    lead = pairs if pairs.dim() == 4 else pairs[None]
    floats = convert_moe_packed_tensors(lead, exponents if pairs.dim() == 4 else exponents[None], dtype=torch.float32)
    floats = floats.transpose(1, 2).reshape(weight.shape)
    return pairs.contiguous(), exponents.contiguous(), floats.contiguous()


def mlx_mxfp4(path, weight):
    pairs, exponents, floats = mxfp4_parts(weight)
    packed = pairs.reshape(*weight.shape[:-1], -1).view(torch.uint32)
    return {f"{path}.weight": packed, f"{path}.scales": exponents}, floats


def mlx_config(bits, group, mode=None, **own):
    usual = {"group_size": group, "bits": bits} | ({"mode": mode} if mode else {})
    return {"quantization": usual | own, "quantization_config": usual | own}


def hf_config(method, **more):
    return {"quantization_config": {"quant_method": method, **more}}


def fp8_config(high, wide):
    return hf_config("fp8", activation_scheme="dynamic", fmt="e4m3", weight_block_size=[high, wide])


INNER = r"layers\.\d+\.(self_attn|mlp)\.\S*_proj\S*$"
ALL = INNER + r"|embed_tokens$|lm_head$"
ROUTER = "mlp.gate"

# Name: the model, the configuration's quantisation, and the first codec whose pattern a path has counts.
MODELS = {
    "qwen3-mlx4": (QWEN3, mlx_config(4, 64), [(ALL, mlx(4, 64))]),
    "qwen3_moe-mlx4": (
        QWEN3_MOE,
        mlx_config(4, 32, "affine", **{
            **{f"model.layers.{layer}.{ROUTER}": {"group_size": 64, "bits": 8} for layer in range(2)},
            "model.layers.1.self_attn.q_proj": False}),
        [(r"mlp\.gate$", mlx(8, 64)), (r"layers\.1\.self_attn\.q_proj$", None), (ALL, mlx(4, 32, torch.float16))]),
    "llama-mlx8": (LLAMA, mlx_config(8, 64), [(ALL, mlx(8, 64, torch.float32))]),
    "mistral-mlx8": (MISTRAL, mlx_config(8, 32), [(ALL, mlx(8, 32))]),
    "qwen2-mlx-mxfp4": (QWEN2, mlx_config(4, 32, "mxfp4"), [(ALL, mlx_mxfp4)]),
    "qwen3-fp8": (QWEN3, fp8_config(128, 128), [(INNER, fp8(128, 128, torch.bfloat16))]),
    "deepseek_v3-fp8": (DEEPSEEK, fp8_config(24, 64), [(INNER, fp8(24, 64))]),
    "llama-gptq": (
        LLAMA, hf_config("gptq", bits=4, group_size=32, desc_act=False, sym=False, checkpoint_format="gptq"),
        [(INNER, gptq(32))]),
    "qwen2-gptq": (
        QWEN2, hf_config("gptq", bits=4, group_size=-1, desc_act=False, sym=False, checkpoint_format="gptq_v2"),
        [(INNER, gptq(-1, 0))]),
    "mistral-awq": (
        MISTRAL, hf_config("awq", bits=4, group_size=32, zero_point=True, version="gemm"), [(INNER, awq(32))]),
    "qwen3-awq": (
        QWEN3, hf_config("awq", bits=4, group_size=64, zero_point=True, version="GEMM"), [(INNER, awq(64))]),
    "gpt_oss-mxfp4": (GPT_OSS, hf_config("mxfp4", modules_to_not_convert=["model.embed_tokens"]), []),
}


def gguf_name(path):
    if path.endswith(("embed_tokens", "lm_head")):
        return "token_embd" if path.endswith("embed_tokens") else "output"
    layer, rest = re.match(r"model\.layers\.(\d+)\.(.*)", path).groups()
    return f"blk.{layer}.{NAMES[rest]}"


def experts_joined(tensors):
    """The tensors with those of experts as MLX has them: all experts' in one."""
    joined, kept = {}, {}
    for name, tensor in tensors.items():
        found = re.match(r"(.*\.mlp)\.experts\.(\d+)\.(\w+_proj)\.weight", name)
        if found:
            joined.setdefault(f"{found[1]}.switch_mlp.{found[3]}.weight", {})[int(found[2])] = tensor
        else:
            kept[name] = tensor
    return kept | {name: torch.stack([own[index] for index in sorted(own)]) for name, own in joined.items()}


def quantised(name, tensors):
    """The tensors to store, those that they stand for, and the floats of quantised matrices by GGUF's names."""
    codecs = MODELS[name][2]
    switched = "-mlx" in name and any(".experts." in one for one in tensors)
    stored, floats, matrices = {}, {}, {}
    for full, tensor in (experts_joined(tensors) if switched else tensors).items():
        path = full.removesuffix(".weight")
        if name.startswith("gpt_oss") and full.endswith(("gate_up_proj", "down_proj")):
            pairs, exponents, exact = mxfp4_parts(tensor.transpose(1, 2).contiguous())
            stored |= {f"{full}_blocks": pairs, f"{full}_scales": exponents}
            floats[full] = exact.transpose(1, 2).contiguous()
            if full.endswith("down_proj"):
                matrices[gguf_name(full)] = [exact]
            else:
                matrices[gguf_name(full.replace("gate_up", "gate"))] = [exact[:, 0::2]]
                matrices[gguf_name(full.replace("gate_up", "up"))] = [exact[:, 1::2]]
            continue
        fitting = (codec for pattern, codec in codecs if full.endswith(".weight") and re.search(pattern, path))
        chosen = next(fitting, None)
        if not chosen:
            stored[full] = floats[full] = tensor
            continue
        coded, exact = chosen(path, tensor)
        stored |= coded
        if ".switch_mlp." in full:
            for index, own in enumerate(exact):
                floats[full.replace(".switch_mlp.", f".experts.{index}.")] = own.contiguous()
        else:
            floats[full] = exact
        matrices.setdefault(gguf_name(re.sub(r"\.experts\.\d+\.", ".experts.", path)), []).append(exact)
    return stored, floats, matrices


def digest(matrices):
    hasher = hashlib.sha256()
    for matrix in matrices:
        # There is no negative zero among integers.
        hasher.update((matrix.contiguous() + 0.0).numpy().astype("<f4").tobytes())
    return hasher.hexdigest()


def make(name, folder):
    seed = zlib.crc32(name.encode())
    draw = np.random.default_rng(seed)
    (model_class, config_class, sizes), settings, _ = MODELS[name]
    model = families.build(model_class, config_class, sizes)
    families.fill(model, draw)
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        tensors = load_file(f"{scratch}/model.safetensors")
        if model.config.tie_word_embeddings:
            tensors.pop("lm_head.weight", None)
        stored, floats, matrices = quantised(name, tensors)
        save_file(floats, f"{scratch}/model.safetensors", {"format": "pt"})
        model = getattr(transformers, model_class).from_pretrained(scratch, dtype=torch.float32)
    ids = [int(one) for one in draw.integers(3, model.config.vocab_size, families.IDS)]
    logits = families.logits_of(model, ids)
    folder.mkdir(exist_ok=True)
    kept = {}
    for one, tensor in stored.items():
        plain = floats.get(one) is tensor
        kept[one] = (tensor.to(torch.bfloat16) if plain else tensor).contiguous()
        assert not plain or torch.equal(kept[one].float(), tensor), f"{one} is no bfloat16"
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    config = model.config.to_dict() | settings
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True, default=str) + "\n")
    golden = {
        "transformers": transformers.__version__,
        "torch": importlib.metadata.version("torch"),
        "seed": seed,
        "input_ids": ids,
        "logits": [[float(f"{one:.6g}") for one in row] for row in logits.tolist()],
        "values": {f"{one}.weight": digest(parts) for one, parts in sorted(matrices.items())},
        "greedy_16": [],
    }
    (folder / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name}: {size} bytes, {len(matrices)} matrices, logits to {logits.abs().max():.1f}")


def main():
    torch.set_num_threads(1)
    data, *names = sys.argv[1:]
    for name in names or MODELS:
        make(name, pathlib.Path(data) / f"tiny-{name}")


if __name__ == "__main__":
    main()
