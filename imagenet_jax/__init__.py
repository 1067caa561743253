"""imagenet_jax: prepare ImageNet, pretrain CNNs on it, finetune, evaluate, take the weights away."""
