"""Writes zip.pth and older.pth, the two formats of torch.save, with what weights can hold. Needs torch (2.14.1)."""

import pathlib

import torch

count = torch.arange(24.0)
state = {"permuted": count.reshape(2, 3, 4).permute(2, 0, 1), "part": count[5:9], "half": (count[:3] / 2).half(),
         "bfloat16": (count[:3] / 2).bfloat16(), "counter": torch.tensor(7), "empty": torch.zeros(0, 3),
         "parameter": torch.nn.Parameter(count[:2].clone()), "truth": count[:3] > 0}
for name, new in (("zip.pth", True), ("older.pth", False)):
    torch.save({"epoch": 3, "state_dict": state}, pathlib.Path(__file__).parent / name,
               _use_new_zipfile_serialization=new)
