"""A space and a table that are searched in a moment."""

BACKBONE = (
    "vit(class_token=false,depth=2,embed_dim=12,global_pool=avg,in_chans=1,num_classes=2,"
    "num_heads=2,patch_size=8)@16"
)
SPACE = f"""\
name: tiny
backbone: {BACKBONE}
order: any
stages:
  - depth: 1..2
    counts: {{V: 0..2, L: 0..1, N: 0..1}}
"""
SPACE_WITH_CB = f"{SPACE}    cb: [none, all]\n"
TABLE = {"V2": 0.9, "V1L1": 0.8, "V1": 0.7, "V1N1": 0.7, "N1V1": 0.65, "N1": 0.5}
