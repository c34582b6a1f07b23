"""llama.cpp as the reference: a thin layer over llama-cpp-python's C bindings.

Needs `pip install llama-cpp-python numpy` (built natively from source). Everything is done with one sequence on the
CPU, the KV cache in f16, flash attention off, and a fixed number of threads, so that a run can be repeated.
"""

import ctypes
import hashlib
import os
import platform

import llama_cpp
import numpy as np


def quiet():
    """Silences llama.cpp's log."""
    callback = llama_cpp.llama_log_callback(lambda level, text, data: None)
    quiet.kept = callback
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))


def versions(path):
    """What the golden file was made with."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {
        "reference": f"llama.cpp through llama-cpp-python {llama_cpp.__version__}",
        "system": llama_cpp.llama_print_system_info().decode().strip(),
        "machine": platform.machine(),
        "model_file": os.path.basename(path),
        "model_sha256": digest.hexdigest(),
    }


class Reference:
    """One model and, unless only the vocabulary is wanted, one context."""

    def __init__(self, path, context_tokens=0, threads=1, batch_tokens=512, pooling=None):
        quiet()
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = context_tokens == 0
        parameters.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
        if not self.model:
            raise SystemExit(f"cannot load {path}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.batch_tokens = batch_tokens
        self.context = None
        if context_tokens:
            parameters = llama_cpp.llama_context_default_params()
            parameters.n_ctx = context_tokens
            parameters.n_batch = batch_tokens
            parameters.n_ubatch = batch_tokens
            parameters.n_threads = threads
            parameters.n_threads_batch = threads
            parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
            parameters.type_k = llama_cpp.GGML_TYPE_F16
            parameters.type_v = llama_cpp.GGML_TYPE_F16
            parameters.offload_kqv = False
            if pooling is not None:
                parameters.embeddings = True
                parameters.pooling_type = pooling
            self.context = llama_cpp.llama_init_from_model(self.model, parameters)
            if not self.context:
                raise SystemExit("cannot make a context")

    def close(self):
        """Lets go of the file and the memory."""
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    def tokenize(self, text, parse_special, add_special=False):
        data = text.encode()
        room = len(data) + 8
        ids = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), ids, room, add_special, parse_special)
        assert count >= 0
        return list(ids[:count])

    def piece(self, token, special):
        buffer = ctypes.create_string_buffer(512)
        count = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, 512, 0, special)
        assert count >= 0
        return buffer.raw[:count]

    def ends(self):
        return [token for token in range(self.size) if llama_cpp.llama_vocab_is_eog(self.vocab, token)]

    def template(self):
        return llama_cpp.llama_model_chat_template(self.model, None).decode()

    def token_text(self, token):
        return llama_cpp.llama_vocab_get_text(self.vocab, token).decode()

    def clear(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def embed(self, tokens):
        """The pooled embedding of at most `batch_tokens` tokens, not normalised."""
        self.clear()
        assert len(tokens) <= self.batch_tokens
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place] = token
            batch.pos[place] = place
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = 0
            batch.logits[place] = True
        assert llama_cpp.llama_decode(self.context, batch) == 0
        llama_cpp.llama_batch_free(batch)
        vector = llama_cpp.llama_get_embeddings_seq(self.context, 0)
        return np.ctypeslib.as_array(vector, shape=(llama_cpp.llama_model_n_embd(self.model),)).copy()

    def decode(self, tokens, start, every):
        """Runs tokens at positions from `start`; the logits of all of them if `every`, else of the last."""
        rows = []
        for offset in range(0, len(tokens), self.batch_tokens):
            part = tokens[offset : offset + self.batch_tokens]
            last_part = offset + len(part) == len(tokens)
            batch = llama_cpp.llama_batch_init(len(part), 0, 1)
            batch.n_tokens = len(part)
            for place, token in enumerate(part):
                batch.token[place] = token
                batch.pos[place] = start + offset + place
                batch.n_seq_id[place] = 1
                batch.seq_id[place][0] = 0
                batch.logits[place] = every or (last_part and place == len(part) - 1)
            assert llama_cpp.llama_decode(self.context, batch) == 0
            for place in range(len(part)):
                if batch.logits[place]:
                    row = llama_cpp.llama_get_logits_ith(self.context, place)
                    rows.append(np.ctypeslib.as_array(row, shape=(self.size,)).copy())
            llama_cpp.llama_batch_free(batch)
        return np.stack(rows)
