"""Exchanges models and adapters between peftml and Hugging Face's transformers and peft.

Usage: interop.py BINARY FOLDER. For a small RoBERTa and a small BERT with random weights, and for a BERT without
a head: outputs of the models; then for every kind of adapter, (1) saved by peft, run by peftml; (2) merged by peftml, run by
transformers; (3) taken in and written again by peftml, loaded by peft. Prints the largest difference of the
logits a line, and at the end the largest of all; exits with 1 where one is above the bound, a key is
missing or unexpected, or what should be refused is not.
"""

import json
import os
import shutil
import subprocess
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
warnings.filterwarnings("ignore")

import numpy as np
import peft
import torch
import transformers
from peft.utils.save_and_load import load_peft_weights, set_peft_model_state_dict

transformers.utils.logging.disable_progress_bar()

BOUND = 1e-4
CONTROL = 1e-2
BINARY, ROOT = sys.argv[1], sys.argv[2]
largest = 0.0
failures = []


def say(text):
    print(text, flush=True)


def fail(text):
    failures.append(text)
    say(f"FAILED {text}")


def peftml(*arguments, expect=0):
    result = subprocess.run([BINARY, *arguments], capture_output=True, text=True)
    if result.returncode != expect:
        raise RuntimeError(f"peftml {' '.join(arguments)}: {result.returncode}: {result.stderr.strip()}")
    return result


def fresh(name):
    path = os.path.join(ROOT, name)
    shutil.rmtree(path, ignore_errors=True)
    return path


def spread(parameters):
    """Numbers at which every part of a network matters."""
    with torch.no_grad():
        for name, parameter in parameters:
            around = 1.0 if "LayerNorm.weight" in name or "ia3" in name or "magnitude" in name else 0.0
            parameter.copy_(around + 0.2 * torch.randn_like(parameter))


def models():
    sizes = dict(vocab_size=90, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=36)
    roberta = transformers.RobertaConfig(**sizes, max_position_embeddings=34, num_labels=3, pad_token_id=1)
    bert = transformers.BertConfig(**sizes, max_position_embeddings=32, num_labels=2, pad_token_id=0)
    yield "roberta", transformers.RobertaForSequenceClassification, roberta
    yield "bert", transformers.BertForSequenceClassification, bert
    yield "bare", transformers.BertModel, bert


def inputs(config):
    generator = np.random.default_rng(3)
    ids = generator.integers(3, config.vocab_size, (5, 12))
    mask = np.ones_like(ids)
    for row, length in enumerate([12, 9, 5, 3, 12]):
        mask[row, length:] = 0
        ids[row, length:] = config.pad_token_id
    path = os.path.join(ROOT, "inputs.npz")
    np.savez(path, input_ids=ids, attention_mask=mask)
    return path, dict(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask))


def adapters(bare):
    """Name, description, whether it can be merged."""
    some = ["query", "value"]
    every = dict(task_type="FEATURE_EXTRACTION" if bare else "SEQ_CLS", inference_mode=True)
    yield "lora", peft.LoraConfig(r=4, lora_alpha=6, **every), True
    yield "lora-rslora-all-linear", peft.LoraConfig(r=4, use_rslora=True, target_modules="all-linear", **every), True
    yield "lora-patterns", peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["query", "key", "dense"],
        rank_pattern={r"layer.0.attention.self.query": 2, "key": 3},
        alpha_pattern={r"^.*layer\.1\..*key": 5, "query": 3}, **every), True
    yield "lora-regular-expression", peft.LoraConfig(
        r=2, target_modules=r".*layer\.\d+\.(?!attention\.output).*dense", **every), True
    yield "lora-layers", peft.LoraConfig(r=3, target_modules=some, layers_to_transform=[1], **every), True
    yield "lora-excluded", peft.LoraConfig(
        r=3, target_modules="all-linear", exclude_modules=["key", "output.dense"], **every), True
    yield "dora", peft.LoraConfig(r=4, use_dora=True, target_modules=some, **every), True
    yield "dora-rslora", peft.LoraConfig(r=4, use_dora=True, use_rslora=True, target_modules="all-linear", **every), True
    yield "vera", peft.VeraConfig(r=6, target_modules=some, **every), True
    yield "vera-all-linear", peft.VeraConfig(r=5, target_modules=["query", "dense"], **every), True
    yield "loha", peft.LoHaConfig(r=4, alpha=6, target_modules=some, rank_pattern={"value": 2}, **every), True
    yield "lokr", peft.LoKrConfig(r=4, alpha=6, target_modules=["query", "dense"], **every), True
    yield "lokr-factor", peft.LoKrConfig(
        r=2, alpha=3, decompose_both=True, decompose_factor=4, target_modules=["query", "dense"], **every), True
    yield "lokr-odd-factor", peft.LoKrConfig(r=1, decompose_factor=5, target_modules=["query", "dense"], **every), True
    yield "ia3", peft.IA3Config(**every), True
    yield "ia3-no-feedforward", peft.IA3Config(target_modules=some, feedforward_modules=[], **every), True
    yield "oft-series", peft.OFTConfig(oft_block_size=4, target_modules=some, **every), True
    yield "oft-exact", peft.OFTConfig(
        oft_block_size=6, use_cayley_neumann=False, target_modules=["query", "dense"], **every), True
    yield "oft-blocks", peft.OFTConfig(r=3, oft_block_size=0, target_modules=some, **every), True
    if bare:
        return
    yield "prompt", peft.PromptTuningConfig(num_virtual_tokens=5, **every), False
    yield "prefix", peft.PrefixTuningConfig(num_virtual_tokens=4, **every), False


def refused():
    """What has no counterpart, and the word that must be in the refusal."""
    some = dict(target_modules=["query", "value"], task_type="SEQ_CLS")
    yield "vera without projections", peft.VeraConfig(r=4, save_projection=False, **some), "save_projection"
    yield "lora with biases", peft.LoraConfig(r=2, bias="all", **some), "bias"
    yield "oft with shared blocks", peft.OFTConfig(oft_block_size=4, block_share=True, **some), "block_share"
    yield "another type", peft.BOFTConfig(boft_block_size=4, **some), "peft_type"


def seen(states, tensors):
    """What stands at padding is nobody's."""
    return states * tensors["attention_mask"].unsqueeze(-1)


def run(model, tensors):
    """The logits; a prefix through the model's cache, since peft asks for a parameter that newer models call
    otherwise."""
    with torch.no_grad():
        if getattr(model, "peft_type", None) != "PREFIX_TUNING":
            out = model(**tensors)
            return (out.logits if hasattr(out, "logits") else seen(out.last_hidden_state, tensors)).numpy()
        base, batch = model.base_model, tensors["input_ids"].shape[0]
        past = model.get_prompt(batch)
        ones = torch.ones(batch, model.active_peft_config.num_virtual_tokens, dtype=torch.long)
        mask = torch.cat([ones, tensors["attention_mask"]], dim=1)
        body = getattr(base, base.base_model_prefix)
        out = body(input_ids=tensors["input_ids"], attention_mask=mask, cache=past)
        pooled = out.pooler_output if out.pooler_output is not None else out.last_hidden_state
        return base.classifier(pooled).numpy()


def evaluated(model, arrays, adapter=None):
    out = os.path.join(ROOT, "outputs.npz")
    extra = ["--adapter", adapter] if adapter else []
    peftml("evaluate", "--model", model, "--inputs", arrays, "--out", out, *extra)
    arrays, found = np.load(arrays), np.load(out)
    return found["logits"] if "logits" in found else found["last_hidden_state"] * arrays["attention_mask"][..., None]


def compare(what, expected, found):
    global largest
    difference = float(np.abs(expected - found).max())
    largest = max(largest, difference)
    if difference <= BOUND:
        return difference
    fail(f"{what}: the logits differ by {difference:.3g}")
    return difference


def loaded(base, adapter):
    """peft's model of a base and an adapter's folder, which must have exactly the keys that peft looks for."""
    config = peft.PeftConfig.from_pretrained(adapter)
    model = peft.get_peft_model(base, config)
    result = set_peft_model_state_dict(model, load_peft_weights(adapter))
    mine = lambda key: any(p in key for p in (".lora_", ".vera_", ".hada_", ".lokr_", ".ia3_", ".oft_", "modules_to_save.default"))
    missing = [key for key in result.missing_keys if mine(key)]
    unexpected = list(result.unexpected_keys)
    if config.is_prompt_learning:
        # peft loads these itself and lets torch call them unexpected.
        unexpected = [key for key in unexpected if key != "prompt_embeddings"]
    return model.eval(), set(missing), set(unexpected)


def exchange(name, kind, config):
    base = fresh(name)
    torch.manual_seed(5)
    source = kind(config)
    spread(source.named_parameters())
    source.eval().save_pretrained(base)
    arrays, tensors = inputs(config)
    plain = run(source, tensors)
    difference = compare(f"{name} without an adapter", plain, evaluated(base, arrays))
    say(f"{name:8} {'without an adapter':26} outputs {difference:.1e}")
    for what, description, mergeable in adapters(kind is transformers.BertModel):
        one(name, kind, base, arrays, tensors, plain, what, description, mergeable)
    for what, description, word in refused():
        folder = fresh(f"{name}-refused")
        peft.get_peft_model(kind.from_pretrained(base), description).save_pretrained(folder)
        out = fresh(f"{name}-refused-out")
        result = peftml("adapters", "import", "--model", base, "--adapter", folder, "--out", out, expect=2)
        if word not in result.stderr or os.path.exists(out):
            fail(f"{name} {what}: {result.stderr.strip()}")
        say(f"{name:8} {what:26} refused")


def one(name, kind, base, arrays, tensors, plain, what, description, mergeable):
    theirs = fresh(f"{name}-{what}")
    torch.manual_seed(6)
    model = peft.get_peft_model(kind.from_pretrained(base), description).eval()
    own = [(n, p) for n, p in model.named_parameters() if "modules_to_save" in n or "prompt_encoder" in n or
           any(part in n for part in ("lora_", "vera_lambda", "hada_", "lokr_", "ia3_", "oft_R"))]
    spread(own)
    model.save_pretrained(theirs)
    expected = run(model, tensors)
    if float(np.abs(expected - plain).max()) < CONTROL:
        fail(f"{name} {what}: the adapter changes nothing: the comparison would see nothing")
    line = f"{name:8} {what:26}"
    try:
        line += f" read {compare(f'{name} {what} read', expected, evaluated(base, arrays, theirs)):.1e}"
        if mergeable:
            merged = fresh(f"{name}-{what}-merged")
            peftml("adapters", "merge", "--model", base, "--adapter", theirs, "--out", merged)
            found = run(kind.from_pretrained(merged).eval(), tensors)
            line += f" merged {compare(f'{name} {what} merged', expected, found):.1e}"
        ours, back = fresh(f"{name}-{what}-ours"), fresh(f"{name}-{what}-back")
        peftml("adapters", "import", "--model", base, "--adapter", theirs, "--out", ours)
        peftml("adapters", "export", "--model", base, "--adapter", ours, "--out", back)
        # peft itself calls layers' views of shared projections missing.
        _, usual, _ = loaded(kind.from_pretrained(base), theirs)
        again, missing, unexpected = loaded(kind.from_pretrained(base), back)
        missing -= usual
        if missing or unexpected:
            fail(f"{name} {what}: missing {sorted(missing)}, unexpected {sorted(unexpected)}")
        line += f" written {compare(f'{name} {what} written', expected, run(again, tensors)):.1e}"
        line += f" missing {len(missing)} unexpected {len(unexpected)}"
        say(line)
    except Exception as error:
        fail(f"{name} {what}: {error}")


for model_name, model_kind, model_config in models():
    exchange(model_name, model_kind, model_config)
versions = f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}"
say(f"largest difference of the logits: {largest:.2e} (at most {BOUND:.0e}); {len(failures)} failures; {versions}")
sys.exit(1 if failures else 0)
