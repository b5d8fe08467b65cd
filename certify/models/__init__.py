"""Language models from elsewhere, made into checkpoints that tickets can be about: no model is run here."""
