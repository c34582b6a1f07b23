"""Makes tests/data/vocabularies.json: texts and the tokens that the models' own libraries give them.

Usage: python vocabularies.py FOLDER > ../../tests/data/vocabularies.json

FOLDER has llama.cpp's test vocabularies (`etc/vocabularies FOLDER`). A SentencePiece or Unigram vocabulary is written
as SentencePiece's own model, and the others are given to the tokenizers package in the form that their models' files
have. Needs `pip install gguf sentencepiece protobuf tokenizers`. `null` stands where the library loses text.
"""

import json
import sys

import gguf
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2 as proto
from texts import TEXTS
from tokenizers import models, normalizers, pre_tokenizers

SENTENCEPIECE = ["llama-spm", "phi-3", "baichuan", "nomic-bert-moe"]
TOKENIZERS = ["bert-bge", "gemma-4"]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def fields(folder, name):
    reader = gguf.GGUFReader(f"{folder}/ggml-vocab-{name}.gguf")
    wanted = {key: field for key, field in reader.fields.items() if key.startswith("tokenizer.ggml.")}
    return {key.removeprefix("tokenizer.ggml."): field.contents() for key, field in wanted.items()}


def sentence_piece(vocabulary):
    """A SentencePiece processor for a vocabulary with scores."""
    model = proto.ModelProto()
    unigram = vocabulary["model"] == "t5"
    for token, score, kind in zip(vocabulary["tokens"], vocabulary["scores"], vocabulary["token_type"]):
        # Only one piece may be the unknown one. The others cannot come out of a text.
        if kind == UNKNOWN and len(model.pieces) != vocabulary.get("unknown_token_id", 0):
            kind = CONTROL
        # llama.cpp takes unused tokens for text in a Unigram vocabulary.
        if kind == UNUSED and unigram:
            kind = NORMAL
        model.pieces.add(piece=token, score=score, type=kind)
    model.trainer_spec.model_type = proto.TrainerSpec.UNIGRAM if unigram else proto.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = not unigram
    model.trainer_spec.vocab_size = len(model.pieces)
    normalizer = model.normalizer_spec
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = vocabulary.get("add_space_prefix", True)
    normalizer.remove_extra_whitespaces = vocabulary.get("remove_extra_whitespaces", False)
    normalizer.escape_whitespaces = True
    charsmap = vocabulary.get("precompiled_charsmap", [])
    normalizer.precompiled_charsmap = bytes(byte & 0xFF for byte in charsmap)
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model.SerializeToString())
    return lambda text: processor.EncodeAsIds(text)


def word_piece(vocabulary):
    """The tokenizers package's WordPiece for a vocabulary as llama.cpp spells it."""
    def own(token, kind):
        return token if kind == CONTROL else token[1:] if token.startswith("\u2581") else "##" + token
    ids = {own(*pair): number for number, pair in enumerate(zip(vocabulary["tokens"], vocabulary["token_type"]))}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def gemma(vocabulary):
    """The tokenizers package's BPE with spaces as U+2581 and bytes for unknown characters."""
    ids = {token: number for number, token in enumerate(vocabulary["tokens"])}
    merges = []
    for merge in vocabulary["merges"]:
        cut = merge.index(" ", 1)
        merges.append((merge[:cut], merge[cut + 1 :]))
    model = models.BPE(ids, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    kinds = zip(vocabulary["tokens"], vocabulary["token_type"])
    tokenizer.add_tokens([tokenizers.AddedToken(t, normalized=False) for t, kind in kinds if kind == USER_DEFINED])
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def main(folder):
    made = {"sentencepiece": sentencepiece.__version__, "tokenizers": tokenizers.__version__}
    made["gguf"] = "llama.cpp's test vocabularies by etc/vocabularies"
    vocabularies = []
    for name in SENTENCEPIECE + TOKENIZERS:
        vocabulary = fields(folder, name)
        make = {"bert": word_piece, "gemma4": gemma}.get(vocabulary["model"], sentence_piece)
        encode = make(vocabulary)
        # Texts that spell a control or unknown token, which llama.cpp and baton take apart, are judged by the test.
        special = [t for t, kind in zip(vocabulary["tokens"], vocabulary["token_type"]) if kind in (UNKNOWN, CONTROL)]
        rows = []
        for text in TEXTS:
            spelled = any(token in text for token in special)
            rows.append(None if spelled else list(encode(text)))
        vocabularies.append({"name": name, "ids": rows})
        print(name, sum(row is not None for row in rows), file=sys.stderr)
    print("{")
    print(f' "made_with": {json.dumps(made)},')
    print(' "texts": [\n  ' + ",\n  ".join(json.dumps(text) for text in TEXTS) + "\n ],")
    print(' "vocabularies": [')
    line = lambda row: "    " + json.dumps(row, separators=(",", ":"))
    entries = [
        f'  {{"name": {json.dumps(entry["name"])}, "ids": [\n' + ",\n".join(map(line, entry["ids"])) + "\n  ]}"
        for entry in vocabularies
    ]
    print(",\n".join(entries) + "\n ]\n}")


main(sys.argv[1])
