"""Makes tests/data/smollm2_tokens.json: texts and the token ids llama.cpp gives them.

Usage: python tokens.py MODEL.gguf > ../../tests/data/smollm2_tokens.json

`ids` is with control tokens spelled in the text left as text, `parsed` (only where it differs) with them parsed. The
script itself checks that the ids give the text back.
"""

import json
import sys

from reference import Reference, versions

TEXTS = [
    "",
    " ",
    "a",
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    "  leading and trailing  ",
    "it's we'll they've I'm you'd can't DON'T WE'LL o'clock",
    "'s't're've'm'll'd",
    "CamelCase snake_case kebab-case SCREAMING_CASE dotted.name",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    " " * 2,
    " " * 3 + "x",
    " " * 17,
    " " * 100 + "end",
    "\t",
    "\t\t\tindented\twith\ttabs",
    "\n",
    "\n\n\n",
    "a\nb\n\nc\n\n\nd",
    "a \n b \n\n  c\t\n",
    "line\r\nline\r\n\r\nline\r",
    " \n \n \t \n",
    "0",
    "0123456789",
    "1 12 123 1234 12345 123456 1234567",
    "3.14159 -2.5e-10 1,000,000 0xDEADBEEF 192.168.0.1",
    "2024-02-29T15:04:05Z",
    "½ ² ³ ⅷ Ⅻ ٣ ৫ 五 ๕",
    "$100 €50 £20 ¥1000 ₹500 50% #1 @user *bold* ~tilde~ `code`",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "... --- === *** ### !!! ???",
    "(a(b(c)d)e) [x][y] {z} <w>",
    "def f(x):\n    \"\"\"Doc.\"\"\"\n    return [i ** 2 for i in range(x) if i % 2 == 0]\n",
    "fn main() -> Result<(), Box<dyn Error>> {\n\tlet v: Vec<u8> = b\"\\x00\".to_vec();\n\tOk(())\n}\n",
    "#include <stdio.h>\nint main(void) { printf(\"%d\\n\", 42); return 0; }\n",
    "const f = async ({ a, ...rest }) => { await g(a ?? rest?.b); /* ok */ };",
    "SELECT u.name, COUNT(*) AS n FROM users u LEFT JOIN orders o ON o.uid = u.id GROUP BY 1 HAVING n > 5;",
    "<!DOCTYPE html>\n<html lang=\"en\"><body class='x'>&amp;&nbsp;</body></html>",
    "{\"a\": [1, 2.5, null, true], \"b\": {\"c\": \"\\u00e9\\n\"}}",
    "#!/bin/sh\nfor f in *.txt; do echo \"$f\" | sed 's/a/b/g' >> out; done",
    "package main\n\nfunc main() {\n\tch := make(chan int, 1)\n\tgo func() { ch <- 1 }()\n\t<-ch\n}\n",
    "\\frac{a}{b} + \\sum_{i=0}^{n} x_i^2 = \\int_0^\\infty e^{-x}\\,dx",
    "| a | b |\n|---|:-:|\n| 1 | 2 |\n\n- [ ] todo\n- [x] done\n",
    "https://example.com/a/b?c=d&e=f#g mailto:someone@example.org",
    "café naïve Zürich Ærøskøbing façade El Niño Łódź",
    "cafe\u0301 n\u0303 o\u0308 (combining)",
    "Ελληνικά: Η γρήγορη καφέ αλεπού.",
    "Русский: Съешь же ещё этих мягких французских булок.",
    "עברית: דג סקרן שט בים מאוכזב.",
    "العربية: نص حكيم له سر قاطع وذو شأن عظيم.",
    "فارسی: می‌خواهم بروم.",
    "हिन्दी: ऋषियों को सताने वाले दुष्ट राक्षसों का सर्वनाश।",
    "বাংলা தமிழ் తెలుగు ಕನ್ನಡ മലയാളം ગુજરાતી",
    "ไทย: เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "中文:天地玄黄,宇宙洪荒。日月盈昃,辰宿列张。",
    "繁體中文:視野無限廣,窗外有藍天。",
    "日本語:いろはにほへと ちりぬるを カタカナ 漢字「引用」。",
    "한국어: 키스의 고유조건은 입술끼리 만나야 하고.",
    "Tiếng Việt: Ngày xưa ở một làng kia có một cô gái.",
    "ქართული Հայերեն አማርኛ ᏣᎳᎩ ᚠᚢᚦᚨᚱᚲ",
    "😀 😃 😄 🎉🚀",
    "👩‍👩‍👧‍👦 👨‍💻 🏳️‍🌈 🧑🏽‍🚀",
    "🇫🇷🇩🇪🇯🇵 👍🏿 ☺️ ❤️ 1️⃣",
    "text😀text 😀 text",
    "zero\u200bwidth joiner\u200dnon\u200cjoiner bom\ufeff",
    "no\u00a0break thin\u2009space ideographic\u3000space em\u2003space",
    "line\u2028separator paragraph\u2029separator next\u0085line vertical\u000btab form\u000cfeed",
    "“curly” ‘single’ „low“ «guillemets» – en — em … ellipsis • bullet",
    "→ ⇒ ∀x ∈ ℝ: x² ≥ 0 ∧ ¬∃y ≠ ∅ √2 ≈ 1.414 ± 0.001 ∞",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛 ﬁ ﬂ ﬃ ＡＢＣ １２３",
    "\u0001\u0002\u001b[31mred\u001b[0m\u007f",
    "\U0010fffd \ue000 \ufffd \ud7ff",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "ababababababababababababababababab",
    "=" * 80,
    "-" * 33 + "\n" + "_" * 31,
    "xX" * 20 + " " + "éÉ" * 20,
    "Mixed 中文 and English, русский и العربية, 日本語😀 — all in 1 line!",
    "The price rose from $1.50 to $2.75 (an 83% increase) on 3/14/2024 at 09:30.",
    "<|im_start|>user\nHi<|im_end|>\n",
    "<|endoftext|>",
    "plain <|im_end|> in the middle, <|im_end|><|im_end|> twice",
    "<|im_start|> <|im_end |> <|im_end| > <| im_end|>",
    "<<|im_end|>> <|im_<|im_end|>end|>",
    "<repo_name>x<file_sep>y<gh_stars>z<empty_output>",
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n",
    "<|IM_END|> </s> <s> [INST] <unk> <|eot_id|>",
    " <|im_end|> \n<|im_end|>\n",
]


def main(path):
    reference = Reference(path)
    cases = []
    for text in TEXTS:
        ids = reference.tokenize(text, parse_special=False)
        parsed = reference.tokenize(text, parse_special=True)
        assert b"".join(reference.piece(token, special=False) for token in ids) == text.encode(), text
        assert b"".join(reference.piece(token, special=True) for token in parsed) == text.encode(), text
        case = {"text": text, "ids": ids}
        if parsed != ids:
            case["parsed"] = parsed
        cases.append(case)
    print("{")
    print(f' "made_with": {json.dumps(versions(path))},')
    print(' "cases": [')
    print(",\n".join("  " + json.dumps(case) for case in cases))
    print(" ]\n}")
    print(len(cases), sum("parsed" in case for case in cases), file=sys.stderr)


main(sys.argv[1])
