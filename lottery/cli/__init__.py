"""Commands that need a model: tune, evaluate, experiment, pretrain, opportunity, count, replay."""
