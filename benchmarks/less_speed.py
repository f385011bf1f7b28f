"""Test whether a less-attention layer is slower than the vanilla layer that it replaces.

    python benchmarks/less_speed.py [--batch-size 16] [--rounds 15] [--json]

For each backbone and stage, it times the attention branch (norm, attention, output projection) of
a vanilla layer and of a less layer in each form, forward and backward, on 2 threads or the first
GPU. The two alternate within a round; the figure is the median over rounds of the ratio of their
times, with quartiles, beside the ratio of their MACs. Exits with 1 if a form with at least 10 %
fewer MACs takes longer (a ratio above 1.0).

It times the branch, not the whole block: norms and MLP are the same in both, and would pull every
ratio towards 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sharedattn.backbones import build_network, describe
from sharedattn.costs.break_even import FORMS
from sharedattn.costs.model import CostModel
from sharedattn.costs.timing import device_name, elapsed_ms
from sharedattn.errors import InputError
from sharedattn.mechanisms.scores import Scores
from sharedattn.networks.block import Block
from sharedattn.networks.legality import check_choice
from sharedattn.placement import BackboneSpec, Envelope, LayerChoice, Placement
from sharedattn.search.provenance import provenance

LAYERS = (
    ("deit_small_patch16_224", 0),
    ("vit_base_patch16_224", 0),
    ("pvt_v2_b2", 2),
    ("pvt_v2_b2", 3),
    ("swin_tiny_patch4_window7_224(handover=previous)", 0),
    ("swin_tiny_patch4_window7_224(handover=previous)", 1),
    ("swin_tiny_patch4_window7_224(handover=previous)", 2),
    ("swin_tiny_patch4_window7_224(handover=previous)", 3),
)
MOST_RATIO = 1.0
LEAST_SAVING = 0.1


def fitting_forms(backbone: BackboneSpec, stage: int) -> list[str]:
    """The forms whose maps a stage supports."""
    forms = []
    for form in FORMS:
        try:
            choice = LayerChoice.of("L", form=form)
            check_choice(describe(backbone).stages[stage], backbone.options, choice)
        except InputError:
            continue
        forms.append(form)
    return forms


def block_of(backbone: BackboneSpec, stage: int, forms: list[str], device: str) -> Block:
    """The last block of a stage, able to run vanilla and less attention in each form."""
    layers = [Placement.parse(f"V,L/{form}").stages[0] for form in forms]
    others = ((LayerChoice("N"),),)
    num_stages = len(describe(backbone).stages)
    placements = [
        Placement(others * stage + (choices,) + others * (num_stages - stage - 1))
        for choices in (*layers, (LayerChoice("V"),) * 2)
    ]
    network = build_network(backbone, Envelope.of(*placements)).to(device).train()
    return network.block(stage, 1)


def branches(block: Block, x_BND: Tensor, forms: list[str]) -> dict[str, Callable[[], None]]:
    """Forward and backward passes of the attention branch: vanilla, and less in each form."""
    with torch.no_grad():
        scores, _ = block.attn.scores_and_values(block.norm1(x_BND))
    # With the memory layout that the previous layer gives: tokens before heads.
    q_BHNK, k_BHMK = (
        t.transpose(1, 2).contiguous().requires_grad_().transpose(1, 2)
        for t in (scores.q_BHNK, scores.k_BHMK)
    )
    bias = None if scores.bias is None else scores.bias.detach().requires_grad_()
    carried = Scores(q_BHNK, k_BHMK, scores.scale, bias)

    def finish(out_BND: Tensor) -> None:
        out_BND.sum().backward()  # type: ignore[no-untyped-call]
        block.zero_grad(set_to_none=True)

    def vanilla() -> None:
        finish(block.attn(*block.attn.scores_and_values(block.norm1(x_BND)))[0])

    def less(form: str) -> Callable[[], None]:
        maps = getattr(block, f"less_{form}", None) or block.less

        def step() -> None:
            finish(block.attn(maps(carried), block.attn.values(block.norm1(x_BND)))[0])

        return step

    return {"vanilla": vanilla, **{form: less(form) for form in forms}}


def measure(
    text: str, stage: int, batch_size: int, rounds: int, device: str
) -> list[dict[str, Any]]:
    """One row per form: MACs and time relative to the vanilla layer's."""
    backbone = BackboneSpec.parse(text)
    forms = fitting_forms(backbone, stage)
    block = block_of(backbone, stage, forms, device)
    sizes = describe(backbone).stages[stage]
    x_BND = torch.randn(
        batch_size, sizes.num_tokens, sizes.embed_dim, device=device, requires_grad=True
    )
    steps = branches(block, x_BND, forms)
    for step in steps.values():
        elapsed_ms(step, device)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(elapsed_ms(step, device))
    costs = CostModel(backbone)
    vanilla_macs = costs.attention(stage, LayerChoice("V")).macs
    rows = []
    for form in forms:
        macs = costs.attention(stage, LayerChoice.of("L", form=form)).macs
        ratios = [a / b for a, b in zip(times[form], times["vanilla"], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        saving = 1 - macs / vanilla_macs
        rows.append(
            {
                "backbone": backbone.name,
                "stage": stage + 1,
                "num_queries": sizes.attention.num_queries,
                "num_keys": sizes.attention.num_keys,
                "embed_dim": sizes.embed_dim,
                "form": form,
                "macs_ratio": round(macs / vanilla_macs, 4),
                "time_ratio": round(median, 4),
                "time_ratio_quartiles": [round(low, 4), round(high, 4)],
                "ok": saving < LEAST_SAVING or median <= MOST_RATIO,
            }
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(2)
    torch.manual_seed(0)
    rows = [
        row
        for text, stage in LAYERS
        for row in measure(text, stage, arguments.batch_size, arguments.rounds, device)
    ]
    ok = all(row["ok"] for row in rows)
    if arguments.json:
        where = device_name(device) if device == "cuda" else "2 CPU threads"
        print(json.dumps({"rows": rows, "ok": ok, "device": where, **provenance()}))
        return 0 if ok else 1
    print("| layer | n x m, D | form | MACs | time | quartiles | |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        low, high = row["time_ratio_quartiles"]
        cells = (
            f"{row['backbone']} stage {row['stage']}",
            f"{row['num_queries']} x {row['num_keys']}, {row['embed_dim']}",
            f"/{row['form']}",
            f"{row['macs_ratio']:.3f}",
            f"{row['time_ratio']:.3f}",
            f"{low:.3f} to {high:.3f}",
            "" if row["ok"] else "SLOWER",
        )
        print(f"| {' | '.join(cells)} |")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
