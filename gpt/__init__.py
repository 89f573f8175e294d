"""Token shards to models: model, order, loader, trainer, checkpoints, fine-tuning, generation. torch only."""
