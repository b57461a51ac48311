"""llama.cpp's format: model.gguf, with the names and the order of weights of its architecture `llama`."""

from pathlib import Path

from torch import Tensor

from plumbline.throughput.models.llama_config import LlamaSizes

FILE = "model.gguf"
SEPARATOR = "_"
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
IN_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def token_text(token: int) -> str:
    """What a token is called in the file: its id and a separator, so that a text says which tokens it is made of."""
    return f"{token}{SEPARATOR}" if token else "\n"  # the kind of vocabulary must have a newline


def token_ids(text: str) -> list[int]:
    """The tokens that `text` is made of."""
    return [int(token) for token in text.replace("\n", f"0{SEPARATOR}").split(SEPARATOR)[:-1]]


def write(folder: Path, sizes: LlamaSizes, tensors: dict[str, Tensor], dtype: str) -> None:
    """Writes a Llama to model.gguf in `folder`: matrices as `dtype`, vectors as float32.

    tensors: by transformers' names; a tied head is left out. The vocabulary is of the kind `rwkv`, the one without an
    end-of-text token: llama.cpp would stop at it.
    """
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    kinds = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    file = GGUFWriter(str(folder / FILE), "llama")
    file.add_vocab_size(sizes.vocabulary)
    file.add_context_length(sizes.context)
    file.add_embedding_length(sizes.width)
    file.add_feed_forward_length(sizes.hidden)
    file.add_block_count(sizes.layers)
    file.add_head_count(sizes.heads)
    file.add_head_count_kv(sizes.kv_heads)
    file.add_key_length(sizes.head_size)
    file.add_value_length(sizes.head_size)
    file.add_layer_norm_rms_eps(sizes.epsilon)
    file.add_rope_dimension_count(sizes.head_size)
    file.add_rope_freq_base(sizes.theta)
    file.add_tokenizer_model("rwkv")
    texts = [token_text(token).replace("\n", "\\n") for token in range(sizes.vocabulary)]  # this kind is escaped
    file.add_token_list(texts)
    for name, tensor in tensors.items():
        kind = GGMLQuantizationType[kinds[dtype] if tensor.dim() > 1 else "F32"]
        numbers = _in_order(name, tensor, sizes).float().contiguous().numpy()
        file.add_tensor(_renamed(name), quants.quantize(numbers, kind), raw_dtype=kind)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def _renamed(name: str) -> str:
    """model.layers.3.mlp.up_proj.weight as blk.3.ffn_up.weight."""
    layer, _, kind = name.rpartition(".")
    if layer in TOP:
        return f"{TOP[layer]}.{kind}"
    _, _, number, inner = layer.split(".", 3)
    return f"blk.{number}.{IN_LAYER[inner]}.{kind}"


def _in_order(name: str, tensor: Tensor, sizes: LlamaSizes) -> Tensor:
    """Of queries and keys, a head's rotary pairs (i, i + size / 2) side by side; the rest as it is."""
    heads = {"q_proj": sizes.heads, "k_proj": sizes.kv_heads}.get(name.split(".")[-2])
    if heads is None:
        return tensor
    return tensor.reshape(heads, 2, sizes.head_size // 2, -1).transpose(1, 2).reshape(tensor.shape)
