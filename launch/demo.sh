#!/usr/bin/env bash
# The whole chain on a machine with nothing but python3: draw a small ILSVRC, prepare it, pretrain a small
# ResNet, evaluate, finetune on handwritten digits, report; ask the first about a picture, and export it. With ImageNet
# at hand only the paths differ.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/setup.sh

out=${1:-demo}
run="python -m imagenet_jax"
[ -d "$out/archives" ] || $run draw --out="$out/archives"
[ -d "$out/ilsvrc" ] || $run prepare --archives="$out/archives" --out="$out/ilsvrc"
[ -d "$out/digits" ] || $run prepare --images="$out/archives/digits" --out="$out/digits"
$run train --config=configs/demo.py --workdir="$out/pretrain" --config.dataset.dir="$out/ilsvrc"
$run evaluate --checkpoint="$out/pretrain/best"
$run train --config=configs/demo_finetune.py --workdir="$out/finetune" --config.dataset.dir="$out/digits" \
    --config.init_from="$out/pretrain"
$run evaluate --workdir="$out/finetune"
picture=ILSVRC2012_val_00000042.JPEG
tar -xf "$out/archives/ILSVRC2012_img_val.tar" -C "$out" "$picture"
$run predict --checkpoint="$out/pretrain/best" --explain="$out/seen" "$out/$picture"
$run export --to=stablehlo --checkpoint="$out/pretrain/best" --out="$out/exported" --images="$out/$picture"

cat <<EOF

Look at:
  $out/pretrain/report.html        learning curves, results, config, timings of the pretraining
  $out/pretrain/evaluation/        report.html with the worst mistakes, predictions, ... (of the best checkpoint)
  $out/finetune/report.html        the same for the digits
  $out/seen/                       a picture, and where the network looked
  $out/exported/                   the network as a file that runs without this package
  tensorboard --logdir=$out        all curves
EOF
